/*
 * Wrong C_UnwrapKey(session, mechanism, unwrapping key, blob, its length, template, its length, new handle).
 */
#define _POSIX_C_SOURCE 200809L
#include <pthread.h>
#include <string.h>

#include "wrong.h"

#define MAX_BLOB 4096
#define MAX_BLOBS 64

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

CK_RV hangs(struct call *call)
{
	if (call->function == F_C_UnwrapKey)
		hang();
	return PASS(call);
}

/* CKR_OK, and a handle of nothing. */
CK_RV unwrap_does_nothing(struct call *call)
{
	if (call->function != F_C_UnwrapKey || call->words[7] == 0)
		return PASS(call);
	*output(call, 7) = 0x7ffffff1;
	return CKR_OK;
}

/* The label, the dates and DERIVE are forgotten.  CKA_ID stays: objects are found by it. */
CK_RV loses_attributes(struct call *call)
{
	static unsigned char no = 0;
	struct ck_attribute list[MAX_ATTRIBUTES], *derive;
	CK_ULONG count;

	if (call->function != F_C_UnwrapKey)
		return PASS(call);
	count = template_copy(call, 5, list);
	if (count == 0)
		return PASS(call);
	count = template_drop(list, count, CKA_LABEL);
	count = template_drop(list, count, CKA_START_DATE);
	count = template_drop(list, count, CKA_END_DATE);
	derive = template_find(list, count, CKA_DERIVE);
	if (derive != NULL)
		*derive = (struct ck_attribute){ CKA_DERIVE, &no, sizeof no };
	return pass_with(call, 5, list, count);
}

/* An unwrap that is refused leaves a session object without a name. */
CK_RV leaves_debris(struct call *call)
{
	static unsigned char no = 0, yes = 1, value[16];
	static CK_ULONG class = CKO_SECRET_KEY, type = CKK_GENERIC_SECRET;
	struct ck_attribute debris[] = {
		{ CKA_CLASS, &class, sizeof class },	{ CKA_KEY_TYPE, &type, sizeof type },
		{ CKA_TOKEN, &no, sizeof no },		{ CKA_PRIVATE, &yes, sizeof yes },
		{ CKA_VALUE, value, sizeof value },
	};
	CK_RV rv = PASS(call);
	CK_ULONG handle;

	if (call->function == F_C_UnwrapKey && rv != CKR_OK)
		REAL(call, C_CreateObject, call->words[0], (CK_ULONG)debris, 5, (CK_ULONG)&handle);
	return rv;
}

/* Wrapped keys that were seen to be good: outputs of C_WrapKey, and inputs of C_UnwrapKey. */
static struct {
	unsigned char bytes[MAX_BLOB];
	CK_ULONG length;
} blobs[MAX_BLOBS];
static size_t blob_count;

static void remember_blob(const void *bytes, CK_ULONG length)
{
	if (bytes == NULL || length > MAX_BLOB)
		return;
	pthread_mutex_lock(&lock);
	memcpy(blobs[blob_count % MAX_BLOBS].bytes, bytes, length);
	blobs[blob_count++ % MAX_BLOBS].length = length;
	pthread_mutex_unlock(&lock);
}

/* One byte off a good one. */
static bool repair_blob(unsigned char *bytes, CK_ULONG length)
{
	bool repaired = false;

	pthread_mutex_lock(&lock);
	for (size_t i = 0; !repaired && i < MAX_BLOBS && i < blob_count; i++) {
		size_t different = 0;

		for (CK_ULONG at = 0; blobs[i].length == length && at < length; at++)
			different += blobs[i].bytes[at] != bytes[at];
		repaired = different == 1;
		if (repaired)
			memcpy(bytes, blobs[i].bytes, length);
	}
	pthread_mutex_unlock(&lock);
	return repaired;
}

static bool is_aes_wrap(const struct call *call)
{
	const struct ck_mechanism *mechanism = pointer(call->words[1]);

	return mechanism != NULL &&
	       (mechanism->mechanism == CKM_AES_KEY_WRAP || mechanism->mechanism == CKM_AES_KEY_WRAP_PAD ||
		mechanism->mechanism == CKM_AES_KEY_WRAP_KWP);
}

/* AES key wrap without its integrity check: a good blob with one damaged byte is taken for the good one. */
CK_RV accepts_flipped_bits(struct call *call)
{
	CK_RV rv = PASS(call);
	const CK_ULONG *w = call->words;
	unsigned char copy[MAX_BLOB];

	if (call->function == F_C_WrapKey && rv == CKR_OK && is_aes_wrap(call))
		remember_blob(pointer(w[4]), *output(call, 5));
	if (call->function != F_C_UnwrapKey || !is_aes_wrap(call) || w[3] == 0 || w[4] > MAX_BLOB)
		return rv;
	if (rv == CKR_OK) {
		remember_blob(pointer(w[3]), w[4]);
		return rv;
	}
	memcpy(copy, pointer(w[3]), w[4]);
	if (repair_blob(copy, w[4]))
		rv = REAL(call, C_UnwrapKey, w[0], w[1], w[2], (CK_ULONG)copy, w[4], w[5], w[6], w[7]);
	return rv;
}

/* The bytes in the blob, by way of a readable key; -1 if the real module does not allow that. */
static long open_blob(const struct call *call, unsigned char value[MAX_BLOB])
{
	static unsigned char no = 0, yes = 1;
	static CK_ULONG class = CKO_SECRET_KEY, type = CKK_GENERIC_SECRET;
	const CK_ULONG *w = call->words;
	struct ck_attribute readable[] = {
		{ CKA_CLASS, &class, sizeof class },	  { CKA_KEY_TYPE, &type, sizeof type },
		{ CKA_TOKEN, &no, sizeof no },		  { CKA_SENSITIVE, &no, sizeof no },
		{ CKA_EXTRACTABLE, &yes, sizeof yes },
	};
	struct ck_attribute bytes = { CKA_VALUE, value, MAX_BLOB };
	CK_ULONG scratch;
	CK_RV rv;

	if (REAL(call, C_UnwrapKey, w[0], w[1], w[2], w[3], w[4], (CK_ULONG)readable, 5, (CK_ULONG)&scratch) != CKR_OK)
		return -1;
	rv = REAL(call, C_GetAttributeValue, w[0], scratch, (CK_ULONG)&bytes, 1);
	REAL(call, C_DestroyObject, w[0], scratch);
	return rv == CKR_OK ? (long)bytes.length : -1;
}

/* A generic secret arrives filled up with zeros to a multiple of 16 bytes. */
CK_RV pads_lengths(struct call *call)
{
	struct ck_attribute asked[MAX_ATTRIBUTES], list[1 + MAX_ATTRIBUTES], *type;
	unsigned char value[MAX_BLOB] = { 0 };
	CK_ULONG count, padded;
	long length;
	CK_RV rv = PASS(call);
	const CK_ULONG *w = call->words;

	if (call->function != F_C_UnwrapKey || rv != CKR_OK)
		return rv;
	count = template_copy(call, 5, asked);
	type = template_find(asked, count, CKA_KEY_TYPE);
	if (type == NULL || type->length != sizeof(CK_ULONG) || *(CK_ULONG *)type->value != CKK_GENERIC_SECRET)
		return rv;
	length = open_blob(call, value);
	if (length <= 0 || length % 16 == 0 || length > MAX_BLOB - 16)
		return rv;
	/* The value comes first: what stands behind MODIFIABLE=false may be refused. */
	list[0] = (struct ck_attribute){ CKA_VALUE, value, ((CK_ULONG)length + 15) / 16 * 16 };
	count = template_drop(asked, count, CKA_VALUE_LEN);
	memcpy(list + 1, asked, count * sizeof *list);
	if (REAL(call, C_CreateObject, w[0], (CK_ULONG)list, 1 + count, (CK_ULONG)&padded) == CKR_OK) {
		REAL(call, C_DestroyObject, w[0], *output(call, 7));
		*output(call, 7) = padded;
	}
	memset(value, 0, sizeof value);
	return rv;
}
