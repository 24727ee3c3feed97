/*
 * Counts a process's durable steps and its socket steps, and kills it, or makes steps fail, from one of them on.
 *
 * Preloaded (LD_PRELOAD) into the processes of the sweeps; one that calls interpose_arm() is counted from then on, its
 * children are not. A step is one call of a function below: of those that change files, if the file lies under the
 * given root; of those of sockets, on any socket. Reading from a socket is a step when it has brought something, since
 * how often a process looks in vain is a matter of luck.
 *
 * A step that fails gets an errno: of those that write, and, where names fail too, of rename, link and unlink.
 * Each step is one line of the log: number, function, path.
 *
 * Source: ld.so(8), LD_PRELOAD; proc(5), /proc/self/fd.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

enum action { COUNT, KILL_BEFORE, KILL_AFTER, FAIL, FAIL_ONWARDS };
enum group { FILE_DATA, NAME, SOCKET };

#define PATH_SIZE 4096

static enum action action;
static long wanted;
static int error_number;
static bool names_fail;
static char root[PATH_SIZE];
static int log_file;
static atomic_int armed_process;
static atomic_long steps;

#define EXPORTED __attribute__((visibility("default")))

EXPORTED void interpose_arm(int what, long nth, int error, bool names, const char *below, int log)
{
	snprintf(root, sizeof root, "%s", below);
	action = (enum action)what;
	wanted = nth;
	error_number = error;
	names_fail = names;
	log_file = log;
	steps = 0;
	armed_process = getpid();
}

static void die(void)
{
	kill(getpid(), SIGKILL);
	for (;;)
		pause();
}

static bool armed(void)
{
	return armed_process != 0 && armed_process == getpid();
}

static bool below_root(const char *path)
{
	return armed() && strncmp(path, root, strlen(root)) == 0;
}

static bool file_below_root(int file, char path[PATH_SIZE])
{
	char link[64];
	ssize_t length;

	if (!armed())
		return false;
	snprintf(link, sizeof link, "/proc/self/fd/%d", file);
	length = readlink(link, path, PATH_SIZE - 1);
	path[length < 0 ? 0 : length] = '\0';
	return below_root(path);
}

/* Count a step, and kill before it; true if it is to be made. */
static bool step(enum group group, const char *function, const char *path, long *number)
{
	char line[PATH_SIZE + 64];
	int length;
	bool fails;

	*number = atomic_fetch_add(&steps, 1) + 1;
	length = snprintf(line, sizeof line, "%ld %s %s\n", *number, function, path);
	syscall(SYS_write, log_file, line, (size_t)length);
	if (*number == wanted && action == KILL_BEFORE)
		die();
	fails = (*number == wanted && action == FAIL) || (*number >= wanted && action == FAIL_ONWARDS);
	if (!fails || group == SOCKET || (group == NAME && !names_fail))
		return true;
	errno = error_number;
	return false;
}

static void done(long number)
{
	if (number == wanted && action == KILL_AFTER)
		die();
}

/* A function that is a step where `counts` holds. */
#define INTERPOSE(type, name, parameters, arguments, group, counts, path)                                              \
	EXPORTED type name parameters                                                                                  \
	{                                                                                                              \
		static type(*real) parameters;                                                                         \
		char found[PATH_SIZE] = "socket";                                                                      \
		long number = 0;                                                                                       \
		type result;                                                                                           \
		if (real == NULL)                                                                                      \
			real = (__typeof__(real))dlsym(RTLD_NEXT, #name);                                              \
		(void)found;                                                                                           \
		if (!(counts))                                                                                         \
			return real arguments;                                                                         \
		if (!step(group, #name, path, &number))                                                                \
			return -1;                                                                                     \
		result = real arguments;                                                                               \
		done(number);                                                                                          \
		return result;                                                                                         \
	}

#define ON_FILE(type, name, parameters, arguments)                                                                     \
	INTERPOSE(type, name, parameters, arguments, FILE_DATA, file_below_root(file, found), found)
#define ON_NAME(name, parameters, arguments)                                                                           \
	INTERPOSE(int, name, parameters, arguments, NAME, below_root(path), path)
#define ON_SOCKET(name, parameters, arguments)                                                                         \
	INTERPOSE(ssize_t, name, parameters, arguments, SOCKET, armed(), found)

ON_FILE(ssize_t, write, (int file, const void *data, size_t size), (file, data, size))
ON_FILE(ssize_t, pwrite, (int file, const void *data, size_t size, off_t at), (file, data, size, at))
ON_FILE(ssize_t, pwrite64, (int file, const void *data, size_t size, off64_t at), (file, data, size, at))
ON_FILE(int, ftruncate, (int file, off_t size), (file, size))
ON_FILE(int, ftruncate64, (int file, off64_t size), (file, size))
ON_FILE(int, fsync, (int file), (file))
ON_FILE(int, fdatasync, (int file), (file))
ON_NAME(rename, (const char *path, const char *name), (path, name))
ON_NAME(link, (const char *path, const char *name), (path, name))
ON_NAME(unlink, (const char *path), (path))
ON_SOCKET(send, (int file, const void *data, size_t size, int flags), (file, data, size, flags))
ON_SOCKET(sendmsg, (int file, const struct msghdr *message, int flags), (file, message, flags))

EXPORTED ssize_t recvmsg(int file, struct msghdr *message, int flags)
{
	static ssize_t (*real)(int, struct msghdr *, int);
	long number = 0;
	ssize_t result;

	if (real == NULL)
		real = (__typeof__(real))dlsym(RTLD_NEXT, "recvmsg");
	result = real(file, message, flags);
	if (armed() && result > 0) {
		step(SOCKET, "recvmsg", "socket", &number);
		done(number);
	}
	return result;
}
