// Faults of a host, made in one process that loads this first: a clock that is ahead by SCRIMP_FAULT_CLOCK seconds, and
// a name service that knows no name that ends in `.invalid`, without asking anybody.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
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
