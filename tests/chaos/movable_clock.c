/* A wall clock that a test can move: LD_PRELOAD adds the seconds in the file CLOCK_OFFSET_FILE to CLOCK_REALTIME.
   Timers and CLOCK_MONOTONIC are left alone, as when somebody sets a machine's clock. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static long offset(void)
{
    static __thread int busy;
    long seconds = 0;
    const char *name = getenv("CLOCK_OFFSET_FILE");
    if (name && !busy) {
        busy = 1;
        FILE *file = fopen(name, "r");
        if (file) {
            if (fscanf(file, "%ld", &seconds) != 1)
                seconds = 0;
            fclose(file);
        }
        busy = 0;
    }
    return seconds;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    static int (*real)(clockid_t, struct timespec *);
    if (!real)
        real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, now);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += offset();
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    struct timespec precise;
    (void)zone;
    int result = clock_gettime(CLOCK_REALTIME, &precise);
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return result;
}

time_t time(time_t *where)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (where)
        *where = now.tv_sec;
    return now.tv_sec;
}
