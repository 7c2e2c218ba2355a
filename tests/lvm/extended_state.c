/*
 * Lets User Mode Linux 6.1 run on processors with more registers than the kernel knows (AMX).
 *
 * User Mode Linux reads 2696 bytes of a process's extended state, enough up to AVX-512, and writes
 * the same number back. The host's kernel accepts only the complete state (xstateregs_set), larger on
 * such processors. The rest are registers that no process has requested, so the rest is zero.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/uio.h>

long ptrace(enum __ptrace_request request, ...)
{
    static long (*real)(enum __ptrace_request, ...);
    static char state[64 * 1024];
    static size_t size;

    va_list rest;
    va_start(rest, request);
    pid_t pid = va_arg(rest, pid_t);
    void *addr = va_arg(rest, void *);
    void *data = va_arg(rest, void *);
    va_end(rest);

    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "ptrace");
    if (request != PTRACE_SETREGSET || addr != (void *)NT_X86_XSTATE)
        return real(request, pid, addr, data);

    struct iovec *part = data, whole = {state, sizeof state};
    if (!size) {
        if (real(PTRACE_GETREGSET, pid, addr, &whole))
            return -1;
        size = whole.iov_len;
        memset(state, 0, size);
    }
    memcpy(state, part->iov_base, part->iov_len);
    whole.iov_len = part->iov_len > size ? part->iov_len : size;
    return real(PTRACE_SETREGSET, pid, addr, &whole);
}
