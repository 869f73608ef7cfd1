/* SPDX-License-Identifier: Apache-2.0 */
/* Programs by name. */
#ifndef NABLA_EXEC_H
#define NABLA_EXEC_H

/* Becomes the program, which it looks for in the PATH of `env`. Returns only on failure, with the error number. */
int exec_in_path(const char *file, char *const *argv, char *const *env);

#endif
