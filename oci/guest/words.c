// SPDX-License-Identifier: Apache-2.0
#include "words.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int words_read(struct words *words, int directory, const char *name)
{
	struct stat st;
	*words = (struct words){NULL, 0};
	int fd = openat(directory, name, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		return errno;
	words->text = malloc((size_t)st.st_size + 1);
	if (!words->text)
		return ENOMEM;
	while (words->length < (size_t)st.st_size) {
		ssize_t got = read(fd, words->text + words->length, (size_t)st.st_size - words->length);
		if (got <= 0)
			return got < 0 ? errno : EIO;
		words->length += (size_t)got;
	}
	words->text[words->length] = '\0';
	close(fd);
	return 0;
}

char *value_of(char *word, const char *name)
{
	size_t length = strlen(name);
	return !strncmp(word, name, length) && word[length] == '=' ? word + length + 1 : NULL;
}

char **words_list(const struct words *words, const char *name)
{
	size_t count = 0;
	for (size_t i = 0; i < words->length; i++)
		count += !words->text[i];
	char **list = calloc(count + 2, sizeof *list), *value;
	count = 0;
	for (char *word = words->text; list && word < words->text + words->length; word += strlen(word) + 1)
		if ((value = value_of(word, name)))
			list[count++] = value;
	return list;
}

char *words_find(const struct words *words, const char *name)
{
	char *value = NULL;
	for (char *word = words->text; !value && word < words->text + words->length; word += strlen(word) + 1)
		value = value_of(word, name);
	return value;
}

void number_text(char *text, unsigned long long number)
{
	char digits[24];
	size_t count = 0;
	do
		digits[count++] = (char)('0' + number % 10);
	while (number /= 10);
	while (count)
		*text++ = digits[--count];
	*text = '\0';
}
