/* Loaded into `scrimp` with LD_PRELOAD by `kills.rs`: counts what a rank does to the files of its
   checkpoints and stops the process in front of one act, in the middle of it if it writes.

   SCRIMP_FREEZE is RANK:ACT:FILE. The process of this rank, stopped at this act, counted from 1, has
   written FILE. With act 0 it is never stopped, and FILE holds the number of acts at the end. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static long acts, fatal_act = -1;
static const char *report;

__attribute__((constructor)) static void begin(void) {
  const char *mine = getenv("OMPI_COMM_WORLD_RANK"), *wanted = getenv("SCRIMP_FREEZE");
  char *end;
  if (!mine || !wanted || strtol(wanted, &end, 10) != atol(mine)) return;
  fatal_act = strtol(end + 1, &end, 10);
  report = end + 1;
}

static void write_report(void) {
  FILE *file = fopen(report, "w");
  fprintf(file, "%ld\n", acts);
  fclose(file);
}

__attribute__((destructor)) static void end(void) {
  if (fatal_act == 0) write_report();
}

static int is_fatal(const char *path) {
  if (fatal_act < 0 || !strstr(path, "/checkpoints")) return 0;
  pthread_mutex_lock(&mutex);
  int fatal = ++acts == fatal_act;
  pthread_mutex_unlock(&mutex);
  return fatal;
}

static void freeze(void) {
  write_report();
  raise(SIGSTOP);
}

static int is_fatal_for(int descriptor) {
  char link[64], path[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
  ssize_t length = fatal_act < 0 ? -1 : readlink(link, path, sizeof path - 1);
  if (length < 0) return 0;
  path[length] = 0;
  return is_fatal(path);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int mkdir(const char *path, mode_t mode) {
  if (is_fatal(path)) freeze();
  return REAL(mkdir)(path, mode);
}

int rename(const char *from, const char *to) {
  if (is_fatal(from)) freeze();
  return REAL(rename)(from, to);
}

int fsync(int descriptor) {
  if (is_fatal_for(descriptor)) freeze();
  return REAL(fsync)(descriptor);
}

ssize_t write(int descriptor, const void *bytes, size_t length) {
  if (is_fatal_for(descriptor)) {
    REAL(write)(descriptor, bytes, length / 2);
    freeze();
  }
  return REAL(write)(descriptor, bytes, length);
}

int unlinkat(int folder, const char *name, int flags) {
  if (is_fatal_for(folder)) freeze();
  return REAL(unlinkat)(folder, name, flags);
}

int open64(const char *path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  mode_t mode = va_arg(rest, mode_t);
  va_end(rest);
  if ((flags & O_CREAT) && is_fatal(path)) freeze();
  return REAL(open64)(path, flags, mode);
}
