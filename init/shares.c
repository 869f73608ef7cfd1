// SPDX-License-Identifier: Apache-2.0
#include "shares.h"

#include "log.h"

#include <errno.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>

/* access=any: files belong to root, and the host sees one user. msize: the fastest value. */
#define OPTIONS "trans=host,version=9p2000.L,access=any,msize=262144,cache="

/* Returns the error number of the last directory; 0: it exists. */
static int create_directories(char *path)
{
	for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		mkdir(path, 0755);
		*slash = '/';
	}
	return mkdir(path, 0755) < 0 && errno != EEXIST ? errno : 0;
}

static bool mount_share(char *text)
{
	char options[sizeof OPTIONS + 16];
	char *name = strsep(&text, ":"), *mode = strsep(&text, ":"), *cache = strsep(&text, ":");
	if (!text || *text != '/') {
		log_error("mount", strerror(EINVAL));
		return false;
	}
	strncat(strcpy(options, OPTIONS), cache, sizeof options - sizeof OPTIONS);
	int error = create_directories(text);
	if (!mount(name, text, "9p", MS_NOSUID | MS_NODEV | (strcmp(mode, "ro") ? 0 : MS_RDONLY), options))
		return true;
	/* the reason why the directory could not be created says more than mount's ENOENT */
	log_error(text, strerror(errno == ENOENT && error ? error : errno));
	return false;
}

bool mount_shares(char *const *mounts)
{
	for (; *mounts; mounts++)
		if (!mount_share(*mounts))
			return false;
	return true;
}
