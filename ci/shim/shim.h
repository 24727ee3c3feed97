/*
 * What the parts of the shim share.  It needs no PKCS#11 header: each function takes machine words and returns one.
 *
 * Source: PKCS#11 v3.1 sections 3 and 5, pkcs11t.h; the numbers are those of the header.
 */
#ifndef HSMBRIDGE_SHIM_H
#define HSMBRIDGE_SHIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "functions.h"

typedef unsigned long CK_ULONG;
typedef CK_ULONG CK_RV;

_Static_assert(sizeof(CK_ULONG) == sizeof(void *), "an argument must fit into a machine word");

#define CKR_OK 0x00UL
#define CKR_GENERAL_ERROR 0x05UL
#define CKR_FUNCTION_FAILED 0x06UL
#define CKR_ARGUMENTS_BAD 0x07UL
#define CKR_ATTRIBUTE_READ_ONLY 0x10UL
#define CKR_KEY_FUNCTION_NOT_PERMITTED 0x68UL
#define CKR_BUFFER_TOO_SMALL 0x150UL

#define CKA_CLASS 0x000UL
#define CKA_TOKEN 0x001UL
#define CKA_PRIVATE 0x002UL
#define CKA_LABEL 0x003UL
#define CKA_VALUE 0x011UL
#define CKA_KEY_TYPE 0x100UL
#define CKA_SENSITIVE 0x103UL
#define CKA_WRAP 0x106UL
#define CKA_DERIVE 0x10cUL
#define CKA_START_DATE 0x110UL
#define CKA_END_DATE 0x111UL
#define CKA_VALUE_LEN 0x161UL
#define CKA_EXTRACTABLE 0x162UL
#define CKA_LOCAL 0x163UL
#define CKA_NEVER_EXTRACTABLE 0x164UL
#define CKA_ALWAYS_SENSITIVE 0x165UL
#define CKA_DESTROYABLE 0x172UL
#define CKO_SECRET_KEY 4UL
#define CKK_GENERIC_SECRET 0x10UL
#define CKM_AES_KEY_WRAP 0x2109UL
#define CKM_AES_KEY_WRAP_PAD 0x210aUL
#define CKM_AES_KEY_WRAP_KWP 0x210bUL
#define CK_UNAVAILABLE_INFORMATION (~0UL)

struct ck_attribute {
	CK_ULONG type;
	void *value;
	CK_ULONG length;
};

struct ck_mechanism {
	CK_ULONG mechanism;
	void *parameter;
	CK_ULONG length;
};

enum function {
#define X(name, arguments) F_##name,
	FUNCTIONS(X)
#undef X
	FUNCTION_COUNT
};

/* C_UnwrapKeyAuthenticated has the most arguments.  A call passes all ten words on, whatever the function takes: on the
 * 64-bit ABIs of Linux those that are too many are registers and stack that nobody looks at. */
#define WORDS 10
#define WORD_PARAMETERS                                                                                                \
	CK_ULONG a0, CK_ULONG a1, CK_ULONG a2, CK_ULONG a3, CK_ULONG a4, CK_ULONG a5, CK_ULONG a6, CK_ULONG a7,        \
	CK_ULONG a8, CK_ULONG a9
#define WORD_ARGUMENTS a0, a1, a2, a3, a4, a5, a6, a7, a8, a9

typedef CK_RV (*ck_function)(WORD_PARAMETERS);

typedef void (*any_function)(void);

/* A module may serve several lists with different functions in them, so each has thunks of its own. */
enum family { V2_40, V3_0, V3_2, FAMILY_COUNT };

/* CK_FUNCTION_LIST, CK_FUNCTION_LIST_3_0 and CK_FUNCTION_LIST_3_2 differ in their length only. */
struct list {
	unsigned char version[2];
	any_function functions[FUNCTION_COUNT];
};

/* One call by the application.
 *   number  1 for the process's first; 0 before the shim is armed
 *   nth     the same, of this function */
struct call {
	enum family family;
	enum function function;
	CK_ULONG number;
	CK_ULONG nth;
	CK_ULONG *words;
};

typedef CK_RV (*behaviour)(struct call *call);

/* ---- shim.c */

/* One line on stderr. */
__attribute__((format(printf, 1, 2))) void complain(const char *format, ...);

/* ---- calls.c */

extern const char *const function_names[FUNCTION_COUNT];
extern const char *const function_arguments[FUNCTION_COUNT];

extern const struct list *real_lists[FAMILY_COUNT];
extern const ck_function thunks[FAMILY_COUNT][FUNCTION_COUNT];
extern const char *armed_by; /* calls count from when this file exists; NULL: from the start */
extern behaviour misbehaviour; /* NULL: as the real module behaves */

/* The number of the first argument of this kind (a letter of functions.h), -1 if there is none. */
int argument(enum function function, char kind);

static inline void *pointer(CK_ULONG word)
{
	return (void *)word;
}

/* The real module's function. */
CK_RV invoke(enum family family, enum function function, const CK_ULONG words[WORDS]);

/* The call as the application made it, and a call of our own: REAL(call, C_Logout, session). */
#define PASS(call) invoke((call)->family, (call)->function, (call)->words)
#define REAL(call, name, ...) invoke((call)->family, F_##name, (const CK_ULONG[WORDS]){ __VA_ARGS__ })

/* ---- journal.c */

bool journal_open(const char *path);
void journal_call(const struct call *call);
void journal_action(const struct call *call, const char *text, const char *remark);
void journal_return(const struct call *call, CK_RV rv);

/* ---- actions.c */

enum action { BEFORE, AFTER, KILL_BEFORE, KILL_AFTER, HANG, LOGOUT, LOSE_SESSION, CORRUPT_OUTPUT, SHORT_LENGTH };

struct rule {
	char text[80]; /* as it was given */
	bool each;     /* of every function, by the number in all */
	enum function function;
	CK_ULONG at;   /* 0: every time */
	bool onwards;  /* and every time after that */
	enum action action;
	CK_RV rv;
};

/* Read HSMBRIDGE_SHIM_ACTIONS; complains and returns false if it makes no sense. */
bool actions_parse(const char *text);
const struct rule *actions_find(const struct call *call);
_Noreturn void hang(void);
void act_before(const struct call *call, const struct rule *rule);
bool act_on_output(const struct call *call, enum action action);

/* ---- wrong.c */

/* The behaviour of that name; complains and returns NULL if there is none. */
behaviour wrong_find(const char *name);

#endif
