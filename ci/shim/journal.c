/*
 * The journal: a line when a call comes in, a line when it goes back, and a line when the shim acts in between.
 *
 *   PID @NUMBER C_Name#NTH call session=0x1 mechanism=0x2109 kek=0x4 key=0x5
 *   PID @NUMBER C_Name#NTH action after:0x30
 *   PID @NUMBER C_Name#NTH return 0x30 bytes=40
 *
 * Each line is one write() to a file opened with O_APPEND, so lines of threads and processes never mix, and what
 * was written survives a kill.  Only handles, numbers and lengths are written, never what is in a buffer.
 */
#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "shim.h"

static int journal = -1;

bool journal_open(const char *path)
{
	journal = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
	if (journal < 0)
		complain("HSMBRIDGE_SHIM_JOURNAL: cannot write to %s: %s", path, strerror(errno));
	return journal >= 0;
}

struct line {
	char text[512];
	size_t length;
};

__attribute__((format(printf, 2, 3))) static void append(struct line *line, const char *format, ...)
{
	size_t room = sizeof line->text - line->length;
	va_list arguments;
	int written;

	va_start(arguments, format);
	written = vsnprintf(line->text + line->length, room, format, arguments);
	va_end(arguments);
	if (written > 0)
		line->length += (size_t)written < room ? (size_t)written : room - 1;
}

static void begin(struct line *line, const struct call *call, const char *event)
{
	line->length = 0;
	append(line, "%ld @%lu %s#%lu %s", (long)getpid(), call->number, function_names[call->function], call->nth,
	       event);
}

/* Write the line whole.  The application's errno stays as it was. */
static void end(struct line *line)
{
	int saved = errno;
	ssize_t written;

	line->text[line->length++] = '\n';
	do
		written = write(journal, line->text, line->length);
	while (written < 0 && errno == EINTR);
	if (written != (ssize_t)line->length)
		complain("the journal cannot be written: %s", written < 0 ? strerror(errno) : "no space left");
	errno = saved;
}

void journal_call(const struct call *call)
{
	const char *kind = function_arguments[call->function];
	const struct ck_mechanism *mechanism;
	struct line line;

	if (journal < 0)
		return;
	begin(&line, call, "call");
	for (const CK_ULONG *word = call->words; *kind != '\0'; kind++, word++) {
		switch (*kind) {
		case 's':
			append(&line, " session=0x%lx", *word);
			break;
		case 't':
			append(&line, " slot=0x%lx", *word);
			break;
		case 'o':
			append(&line, " object=0x%lx", *word);
			break;
		case 'k':
			append(&line, " key=0x%lx", *word);
			break;
		case 'w':
			append(&line, " kek=0x%lx", *word);
			break;
		case 'm':
			mechanism = pointer(*word);
			if (mechanism != NULL)
				append(&line, " mechanism=0x%lx", mechanism->mechanism);
			break;
		case 'b':
			if (*word == 0)
				append(&line, " size-query");
			break;
		}
	}
	end(&line);
}

void journal_action(const struct call *call, const char *text, const char *remark)
{
	struct line line;

	if (journal < 0)
		return;
	begin(&line, call, "action");
	append(&line, " %s%s%s", text, *remark == '\0' ? "" : " ", remark);
	end(&line);
}

void journal_return(const struct call *call, CK_RV rv)
{
	const char *kind = function_arguments[call->function];
	struct line line;

	if (journal < 0)
		return;
	begin(&line, call, "return");
	append(&line, " 0x%lx", rv);
	for (const CK_ULONG *word = call->words; *kind != '\0'; kind++, word++) {
		/* After an error only a length means something: the one that would have been enough. */
		if (*word == 0 || (rv != CKR_OK && !(rv == CKR_BUFFER_TOO_SMALL && *kind == 'L')))
			continue;
		switch (*kind) {
		case 'n':
			append(&line, " new=0x%lx", *(const CK_ULONG *)pointer(*word));
			break;
		case 'N':
			append(&line, " session=0x%lx", *(const CK_ULONG *)pointer(*word));
			break;
		case 'L':
			append(&line, " bytes=%lu", *(const CK_ULONG *)pointer(*word));
			break;
		case 'c':
			append(&line, " found=%lu", *(const CK_ULONG *)pointer(*word));
			break;
		}
	}
	end(&line);
}
