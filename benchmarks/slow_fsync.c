/* Preloaded into a server: each wait for the disk takes FSYNC_US microseconds longer, as on a disk that really writes. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>

static void delay(void)
{
    static int us = -1;
    if (us < 0) {
        const char *text = getenv("FSYNC_US");
        us = text ? atoi(text) : 0;
    }
    if (us)
        usleep(us);
}

int fsync(int fd)
{
    static int (*real)(int);
    if (!real)
        real = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    delay();
    return real(fd);
}

int fdatasync(int fd)
{
    static int (*real)(int);
    if (!real)
        real = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    delay();
    return real(fd);
}
