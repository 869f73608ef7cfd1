// SPDX-License-Identifier: Apache-2.0
// An init that powers off at once, without libc: the measured time is that of start and end.
static void call(long number, long a, long b, long c)
{
	__asm__ volatile("syscall" : "+a"(number) : "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
}

__attribute__((used)) static void run(void)
{
	call(169 /* reboot */, 0xfee1dead, 672274793, 0x4321fedc /* RB_POWER_OFF */);
	for (;;)
		call(34 /* pause */, 0, 0, 0);
}

__asm__(".globl _start\n_start: xor %ebp, %ebp\n and $-16, %rsp\n call run\n hlt\n");
