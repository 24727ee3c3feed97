/* What wrapping and unwrapping costs without hsmbridge: one C_WrapKey and one C_UnwrapKey for each key, and nothing else.
 *
 *     wrap_unwrap KEYS [MECHANISM]
 *
 * Makes a session AES-256 KEK and KEYS session AES-256 keys. Then, for each line on stdin, wraps every key in a timed loop, does
 * so again with a look at KEK and key before each wrap, unwraps every result, destroys the new objects, and prints
 * {"wrap": keys/s, "looked": keys/s, "unwrap": keys/s}.
 * Environment: PKCS11_MODULE, PKCS11_MODULE_ARGS, PKCS11_TOKEN_LABEL, PKCS11_PIN, as ci/with-token sets them.
 *
 * The declarations are those that this program needs of PKCS#11 v3.1 (sections 3 and 5), so that it builds without a header
 * package; 64-bit Linux, where a CK_ULONG is an unsigned long and structures are not packed.
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef unsigned char byte;
typedef unsigned long ck_ulong;

struct attribute { ck_ulong type; void *value; ck_ulong length; };
struct mechanism { ck_ulong number; void *parameter; ck_ulong length; };
struct initialize_args { void *mutex_functions[4]; ck_ulong flags; const char *reserved; void *nss_reserved; };

/* CK_FUNCTION_LIST: a version, then function pointers; the numbers are places in PKCS#11 2.40's order, which 3.x keeps. */
struct function_list { byte version[2]; void (*function[68])(void); };
enum {
    C_INITIALIZE = 0, C_FINALIZE = 1, C_GET_SLOT_LIST = 4, C_GET_TOKEN_INFO = 6, C_OPEN_SESSION = 12, C_LOGIN = 18,
    C_DESTROY_OBJECT = 22, C_GET_ATTRIBUTE_VALUE = 24, C_GENERATE_KEY = 58, C_WRAP_KEY = 60, C_UNWRAP_KEY = 61,
};
typedef ck_ulong (*get_function_list_fn)(struct function_list **);
typedef ck_ulong (*pointer_fn)(void *);
typedef ck_ulong (*get_slot_list_fn)(byte, ck_ulong *, ck_ulong *);
typedef ck_ulong (*get_token_info_fn)(ck_ulong, void *);
typedef ck_ulong (*open_session_fn)(ck_ulong, ck_ulong, void *, void *, ck_ulong *);
typedef ck_ulong (*login_fn)(ck_ulong, ck_ulong, byte *, ck_ulong);
typedef ck_ulong (*destroy_object_fn)(ck_ulong, ck_ulong);
typedef ck_ulong (*get_attribute_value_fn)(ck_ulong, ck_ulong, struct attribute *, ck_ulong);
typedef ck_ulong (*generate_key_fn)(ck_ulong, struct mechanism *, struct attribute *, ck_ulong, ck_ulong *);
typedef ck_ulong (*wrap_key_fn)(ck_ulong, struct mechanism *, ck_ulong, ck_ulong, byte *, ck_ulong *);
typedef ck_ulong (*unwrap_key_fn)(
    ck_ulong, struct mechanism *, ck_ulong, byte *, ck_ulong, struct attribute *, ck_ulong, ck_ulong *);

enum { CKF_OS_LOCKING_OK = 2, CKF_RW_SESSION = 2, CKF_SERIAL_SESSION = 4, CKU_USER = 1 };
enum { CKO_SECRET_KEY = 4, CKK_AES = 0x1F, CKM_AES_KEY_GEN = 0x1080, CKM_AES_KEY_WRAP_PAD = 0x210A };
enum {
    CKA_CLASS = 0, CKA_TOKEN = 1, CKA_PRIVATE = 2, CKA_KEY_TYPE = 0x100, CKA_SENSITIVE = 0x103, CKA_ENCRYPT = 0x104,
    CKA_DECRYPT = 0x105, CKA_WRAP = 0x106, CKA_UNWRAP = 0x107, CKA_SIGN = 0x108, CKA_VERIFY = 0x10A, CKA_DERIVE = 0x10C,
    CKA_VALUE_LEN = 0x161, CKA_EXTRACTABLE = 0x162,
};
enum { MAX_SLOTS = 64, LABEL_SIZE = 32, TOKEN_INFO_ROOM = 512, WRAP_ROOM = 4096, AES_256 = 32 };

static struct function_list *list;
#define CALL(type, place) ((type)list->function[place])

static void stop(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("wrap_unwrap: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

static void ok(const char *function, ck_ulong ckr)
{
    if (ckr != 0)
        stop("%s answered 0x%lx", function, ckr);
}

static const char *variable(const char *name)
{
    const char *value = getenv(name);
    if (value == NULL)
        stop("%s is not set: run it under ci/with-token", name);
    return value;
}

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void load(void)
{
    void *library = dlopen(variable("PKCS11_MODULE"), RTLD_NOW);
    if (library == NULL)
        stop("%s", dlerror());
    get_function_list_fn get = (get_function_list_fn)dlsym(library, "C_GetFunctionList");
    if (get == NULL)
        stop("the module has no C_GetFunctionList");
    ok("C_GetFunctionList", get(&list));
    struct initialize_args args = { .flags = CKF_OS_LOCKING_OK, .reserved = getenv("PKCS11_MODULE_ARGS") };
    ok("C_Initialize", CALL(pointer_fn, C_INITIALIZE)(&args));
}

static ck_ulong open_token(void)
{
    char label[LABEL_SIZE + 1], info[TOKEN_INFO_ROOM] __attribute__((aligned(8)));
    ck_ulong slots[MAX_SLOTS], count = MAX_SLOTS, session;
    snprintf(label, sizeof label, "%-32s", variable("PKCS11_TOKEN_LABEL")); /* padded with blanks, as in CK_TOKEN_INFO */
    ok("C_GetSlotList", CALL(get_slot_list_fn, C_GET_SLOT_LIST)(1, slots, &count));
    for (ck_ulong i = 0; i < count; i++) {
        if (CALL(get_token_info_fn, C_GET_TOKEN_INFO)(slots[i], info) != 0 || memcmp(info, label, LABEL_SIZE) != 0)
            continue;
        char *pin = strdup(variable("PKCS11_PIN"));
        ok("C_OpenSession",
           CALL(open_session_fn, C_OPEN_SESSION)(slots[i], CKF_SERIAL_SESSION | CKF_RW_SESSION, NULL, NULL, &session));
        ok("C_Login", CALL(login_fn, C_LOGIN)(session, CKU_USER, (byte *)pin, strlen(pin)));
        free(pin);
        return session;
    }
    stop("no token has the label %s", label);
    return 0;
}

static byte yes = 1, no = 0;
static ck_ulong secret_key = CKO_SECRET_KEY, aes = CKK_AES, key_size = AES_256;
#define ULONG(type, value) { type, &(value), sizeof(ck_ulong) }
#define BOOL(type, value) { type, &(value), 1 }
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static ck_ulong generate(ck_ulong session, struct attribute *template, ck_ulong count)
{
    struct mechanism generation = { CKM_AES_KEY_GEN, NULL, 0 };
    ck_ulong key;
    ok("C_GenerateKey", CALL(generate_key_fn, C_GENERATE_KEY)(session, &generation, template, count, &key));
    return key;
}

/* What hsmbridge asks before a wrap: may the KEK only wrap and unwrap, may the key leave, how strong are they. */
static void look(ck_ulong session, ck_ulong object, const ck_ulong *types, ck_ulong count)
{
    ck_ulong values[16];
    struct attribute query[16];
    for (ck_ulong i = 0; i < count; i++)
        query[i] = (struct attribute){ types[i], &values[i], sizeof values[i] };
    ok("C_GetAttributeValue",
       CALL(get_attribute_value_fn, C_GET_ATTRIBUTE_VALUE)(session, object, query, count));
}

struct wrap { ck_ulong length; byte data[AES_256 + 32]; };

int main(int argc, char **argv)
{
    ck_ulong keys = argc > 1 ? strtoul(argv[1], NULL, 0) : 0;
    struct mechanism wrapping = { argc > 2 ? strtoul(argv[2], NULL, 0) : CKM_AES_KEY_WRAP_PAD, NULL, 0 };
    if (keys == 0 || argc > 3) {
        fputs("usage: wrap_unwrap KEYS [MECHANISM]\n", stderr);
        return 2;
    }
    ck_ulong *made = calloc(keys, sizeof *made), *arrived = calloc(keys, sizeof *arrived);
    struct wrap *wraps = calloc(keys, sizeof *wraps);
    if (made == NULL || arrived == NULL || wraps == NULL)
        stop("%s", strerror(errno));

    load();
    ck_ulong session = open_token();
    struct attribute kek_template[] = {
        ULONG(CKA_CLASS, secret_key), ULONG(CKA_KEY_TYPE, aes), ULONG(CKA_VALUE_LEN, key_size), BOOL(CKA_TOKEN, no),
        BOOL(CKA_PRIVATE, yes), BOOL(CKA_SENSITIVE, yes), BOOL(CKA_EXTRACTABLE, no), BOOL(CKA_WRAP, yes),
        BOOL(CKA_UNWRAP, yes), BOOL(CKA_ENCRYPT, no), BOOL(CKA_DECRYPT, no), BOOL(CKA_SIGN, no), BOOL(CKA_VERIFY, no),
        BOOL(CKA_DERIVE, no),
    };
    /* The last entry is for C_GenerateKey only. */
    struct attribute key_template[] = {
        ULONG(CKA_CLASS, secret_key), ULONG(CKA_KEY_TYPE, aes), BOOL(CKA_TOKEN, no), BOOL(CKA_PRIVATE, yes),
        BOOL(CKA_SENSITIVE, yes), BOOL(CKA_EXTRACTABLE, yes), BOOL(CKA_ENCRYPT, yes), BOOL(CKA_DECRYPT, yes),
        BOOL(CKA_SIGN, no), BOOL(CKA_VERIFY, no), BOOL(CKA_WRAP, no), BOOL(CKA_UNWRAP, no), BOOL(CKA_DERIVE, no),
        ULONG(CKA_VALUE_LEN, key_size),
    };
    ck_ulong kek = generate(session, kek_template, COUNT(kek_template));
    for (ck_ulong i = 0; i < keys; i++)
        made[i] = generate(session, key_template, COUNT(key_template));

    wrap_key_fn wrap_key = CALL(wrap_key_fn, C_WRAP_KEY);
    unwrap_key_fn unwrap_key = CALL(unwrap_key_fn, C_UNWRAP_KEY);
    const ck_ulong kek_types[] = {
        CKA_CLASS, CKA_KEY_TYPE, CKA_VALUE_LEN, CKA_WRAP, CKA_UNWRAP, CKA_ENCRYPT, CKA_DECRYPT, CKA_SIGN, CKA_VERIFY, CKA_DERIVE,
    };
    const ck_ulong key_types[] = { CKA_CLASS, CKA_KEY_TYPE, CKA_VALUE_LEN, CKA_EXTRACTABLE };
    byte buffer[WRAP_ROOM];
    char line[16];
    while (fgets(line, sizeof line, stdin) != NULL) {
        double start = seconds();
        for (ck_ulong i = 0; i < keys; i++) {
            ck_ulong length = sizeof buffer;
            ok("C_WrapKey", wrap_key(session, &wrapping, kek, made[i], buffer, &length));
            if (length > sizeof wraps[i].data)
                stop("a wrap of %lu bytes is too long for an AES-256 key", length);
            wraps[i].length = length;
            memcpy(wraps[i].data, buffer, length);
        }
        double middle = seconds();
        for (ck_ulong i = 0; i < keys; i++) {
            ck_ulong length = sizeof buffer;
            look(session, kek, kek_types, COUNT(kek_types));
            look(session, made[i], key_types, COUNT(key_types));
            ok("C_WrapKey", wrap_key(session, &wrapping, kek, made[i], buffer, &length));
        }
        double looked = seconds();
        for (ck_ulong i = 0; i < keys; i++)
            ok("C_UnwrapKey", unwrap_key(session, &wrapping, kek, wraps[i].data, wraps[i].length, key_template,
                                         COUNT(key_template) - 1, &arrived[i]));
        double end = seconds();
        for (ck_ulong i = 0; i < keys; i++)
            ok("C_DestroyObject", CALL(destroy_object_fn, C_DESTROY_OBJECT)(session, arrived[i]));
        printf("{\"wrap\": %.1f, \"looked\": %.1f, \"unwrap\": %.1f}\n", (double)keys / (middle - start),
               (double)keys / (looked - middle), (double)keys / (end - looked));
        fflush(stdout);
    }
    ok("C_Finalize", CALL(pointer_fn, C_FINALIZE)(NULL));
    return 0;
}
