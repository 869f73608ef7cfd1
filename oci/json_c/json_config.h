/* SPDX-License-Identifier: Apache-2.0 */
/* Made by json-c's cmake elsewhere. */
#define JSON_C_HAVE_INTTYPES_H 1
#define JSON_C_HAVE_STDINT_H 1
