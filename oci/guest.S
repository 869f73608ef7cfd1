/* SPDX-License-Identifier: Apache-2.0 */
/* The guest's first program, as bytes. */
	.section .rodata
	.globl guest_init, guest_init_end
guest_init:
	.incbin "nabla-oci-init"
guest_init_end:
	.section .note.GNU-stack, "", @progbits
