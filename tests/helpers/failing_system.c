// A system whose n-th call on a file below a folder fails: preloaded before libc.
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[4096];
static atomic_long calls, failed;
static atomic_int armed;
static long failing_call;
static int failing_errno, failing_on;

// Begin to count; call `number` fails with `error`, and those after it too if `on`.
void failing_system_arm(const char *below, long number, int error, int on) {
  strncpy(folder, below, sizeof folder - 1);
  failing_call = number;
  failing_errno = error;
  failing_on = on;
  calls = 0;
  failed = 0;
  armed = 1;
}

// Stop; return how many calls there were.
long failing_system_disarm(void) {
  armed = 0;
  return calls;
}

// Return how many calls failed.
long failing_system_failed(void) { return failed; }

static int fails(const char *path) {
  if (!armed || !path || strncmp(path, folder, strlen(folder))) return 0;
  long now = ++calls;
  if (!failing_call || (failing_on ? now < failing_call : now != failing_call)) return 0;
  failed++;
  errno = failing_errno;
  return 1;
}

static int fails_by_fd(int fd) {
  char link[64], path[4096];
  if (!armed) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length < 0) return 0;
  path[length] = 0;
  return fails(path);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

#define OPEN(name)                                            \
  int name(const char *path, int flags, ...) {                \
    va_list rest;                                             \
    va_start(rest, flags);                                    \
    mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0; \
    va_end(rest);                                             \
    return fails(path) ? -1 : REAL(name)(path, flags, mode);  \
  }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                             \
  int name(int at, const char *path, int flags, ...) {           \
    va_list rest;                                                \
    va_start(rest, flags);                                       \
    mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0;    \
    va_end(rest);                                                \
    return fails(path) ? -1 : REAL(name)(at, path, flags, mode); \
  }
OPENAT(openat)
OPENAT(openat64)

ssize_t read(int fd, void *to, size_t size) {
  return fails_by_fd(fd) ? -1 : REAL(read)(fd, to, size);
}
ssize_t pread(int fd, void *to, size_t size, off_t at) {
  return fails_by_fd(fd) ? -1 : REAL(pread)(fd, to, size, at);
}
ssize_t pread64(int fd, void *to, size_t size, off64_t at) {
  return fails_by_fd(fd) ? -1 : REAL(pread64)(fd, to, size, at);
}
ssize_t write(int fd, const void *from, size_t size) {
  return fails_by_fd(fd) ? -1 : REAL(write)(fd, from, size);
}
ssize_t pwrite64(int fd, const void *from, size_t size, off64_t at) {
  return fails_by_fd(fd) ? -1 : REAL(pwrite64)(fd, from, size, at);
}
int fsync(int fd) { return fails_by_fd(fd) ? -1 : REAL(fsync)(fd); }
size_t fread(void *to, size_t size, size_t count, FILE *file) {
  return fails_by_fd(fileno(file)) ? 0 : REAL(fread)(to, size, count, file);
}
int rename(const char *from, const char *to) { return fails(to) ? -1 : REAL(rename)(from, to); }
int link(const char *from, const char *to) { return fails(to) ? -1 : REAL(link)(from, to); }
int mkdir(const char *path, mode_t mode) { return fails(path) ? -1 : REAL(mkdir)(path, mode); }
int stat(const char *path, struct stat *found) {
  return fails(path) ? -1 : REAL(stat)(path, found);
}
int stat64(const char *path, struct stat64 *found) {
  return fails(path) ? -1 : REAL(stat64)(path, found);
}
DIR *opendir(const char *path) { return fails(path) ? NULL : REAL(opendir)(path); }
