/* Shift the wall clock of every process that preloads this library.
 *
 * The file WALL_CLOCK has two numbers of 8 bytes: the shift in seconds, and the real time at which
 * the run began. A write to the file shifts the clock of all processes at once. The times of files
 * that changed after the run began are shifted too; older files keep theirs, so that Python need
 * not compile its modules again. Clocks that are monotonic are not shifted.
 *
 * libfaketime 0.9.10 of Debian and Ubuntu is not used: with FAKETIME_DONT_FAKE_MONOTONIC its
 * clock_nanosleep() fails in time.sleep() of Python 3.11 and newer, and without it a lock with a
 * timeout waits forever, because sem_clockwait() is not shifted.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t none[2] = {0, INT64_MAX};
static const volatile int64_t *settings = none;

__attribute__((constructor)) static void map_settings(void) {
  const char *path = getenv("WALL_CLOCK");
  int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
  if (file < 0) return;
  void *mapped = mmap(NULL, sizeof none, PROT_READ, MAP_SHARED, file, 0);
  close(file);
  if (mapped != MAP_FAILED) settings = mapped;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
  int result = (int)syscall(SYS_clock_gettime, clock, now);
  if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
    now->tv_sec += settings[0];
  return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  int result = (int)syscall(SYS_gettimeofday, now, zone);
  if (result == 0) now->tv_sec += settings[0];
  return result;
}

time_t time(time_t *result) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (result != NULL) *result = now.tv_sec;
  return now.tv_sec;
}

int timespec_get(struct timespec *now, int base) {
  return base == TIME_UTC && clock_gettime(CLOCK_REALTIME, now) == 0 ? base : 0;
}

int clock_nanosleep(clockid_t clock, int flags, const struct timespec *wanted, struct timespec *left) {
  struct timespec until = *wanted;
  if (clock == CLOCK_REALTIME && (flags & TIMER_ABSTIME)) until.tv_sec -= settings[0];
  return syscall(SYS_clock_nanosleep, clock, flags, &until, left) == 0 ? 0 : errno;
}

/* Interpreters for an old glibc wait for locks until a time of the wall clock. */
int sem_timedwait(sem_t *restrict semaphore, const struct timespec *restrict wanted) {
  struct timespec until = *wanted;
  until.tv_sec -= settings[0];
  return sem_clockwait(semaphore, CLOCK_REALTIME, &until);
}

static int shifted(long result, struct stat *file) {
  if (result != 0) return -1;
  if (file->st_ctim.tv_sec < settings[1]) return 0;
  file->st_atim.tv_sec += settings[0];
  file->st_mtim.tv_sec += settings[0];
  file->st_ctim.tv_sec += settings[0];
  return 0;
}

int fstatat(int folder, const char *restrict path, struct stat *restrict file, int flags) {
  return shifted(syscall(SYS_newfstatat, folder, path, file, flags), file);
}

int stat(const char *restrict path, struct stat *restrict file) {
  return fstatat(AT_FDCWD, path, file, 0);
}

int lstat(const char *restrict path, struct stat *restrict file) {
  return fstatat(AT_FDCWD, path, file, AT_SYMLINK_NOFOLLOW);
}

int fstat(int number, struct stat *file) { return fstatat(number, "", file, AT_EMPTY_PATH); }

/* The names of the same functions for programs with large files, and in an old glibc. */
#define ALIAS(name) __attribute__((alias(#name)))
int fstatat64(int, const char *restrict, struct stat64 *restrict, int) ALIAS(fstatat);
int stat64(const char *restrict, struct stat64 *restrict) ALIAS(stat);
int lstat64(const char *restrict, struct stat64 *restrict) ALIAS(lstat);
int fstat64(int, struct stat64 *) ALIAS(fstat);

int __xstat(int version, const char *path, struct stat *file) { (void)version; return stat(path, file); }
int __lxstat(int version, const char *path, struct stat *file) { (void)version; return lstat(path, file); }
int __fxstat(int version, int number, struct stat *file) { (void)version; return fstat(number, file); }
int __xstat64(int, const char *, struct stat *) ALIAS(__xstat);
int __lxstat64(int, const char *, struct stat *) ALIAS(__lxstat);
int __fxstat64(int, int, struct stat *) ALIAS(__fxstat);

static int set_times(int folder, const char *path, const struct timespec wanted[2], int flags) {
  struct timespec times[2];
  for (int n = 0; wanted != NULL && n < 2; n++) {
    times[n] = wanted[n];
    if (wanted[n].tv_nsec != UTIME_NOW && wanted[n].tv_nsec != UTIME_OMIT)
      times[n].tv_sec -= settings[0];
  }
  return (int)syscall(SYS_utimensat, folder, path, wanted == NULL ? NULL : times, flags);
}

int utimensat(int folder, const char *path, const struct timespec wanted[2], int flags) {
  return set_times(folder, path, wanted, flags);
}

int futimens(int number, const struct timespec wanted[2]) {
  return set_times(number, NULL, wanted, 0);
}
