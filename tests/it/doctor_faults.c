// Faults of a host, made in one process that loads this first: a clock that is ahead by SCRIMP_FAULT_CLOCK seconds, a
// name service that knows no name that ends in `.invalid`, without asking anybody, and a process that stands still as soon
// as it opens a file with SCRIMP_FAULT_STOP in its name.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <netdb.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

int clock_gettime(clockid_t clock, struct timespec *now) {
  static int (*real)(clockid_t, struct timespec *);
  if (!real)
    real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
  int result = real(clock, now);
  const char *ahead = getenv("SCRIMP_FAULT_CLOCK");
  if (result == 0 && clock == CLOCK_REALTIME && ahead)
    now->tv_sec += atol(ahead);
  return result;
}

int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints,
                struct addrinfo **found) {
  static int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
  if (!real)
    real = (int (*)(const char *, const char *, const struct addrinfo *, struct addrinfo **))dlsym(
        RTLD_NEXT, "getaddrinfo");
  size_t length = name ? strlen(name) : 0;
  if (length > 8 && strcmp(name + length - 8, ".invalid") == 0)
    return EAI_NONAME;
  return real(name, service, hints, found);
}

int open64(const char *path, int flags, ...) {
  static int (*real)(const char *, int, ...);
  if (!real)
    real = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open64");
  const char *stop = getenv("SCRIMP_FAULT_STOP");
  if (stop && strstr(path, stop))
    raise(SIGSTOP);
  va_list rest;
  va_start(rest, flags);
  mode_t mode = va_arg(rest, mode_t);
  va_end(rest);
  return real(path, flags, mode);
}
