/* SPDX-License-Identifier: Apache-2.0 */
/* Programs by name. */
#ifndef NABLA_EXEC_H
#define NABLA_EXEC_H

/* Executes the program, found in the PATH of `env`. Returns only on failure, with the error number. */
int exec_in_path(const char *file, char *const *argv, char *const *env);

#endif
