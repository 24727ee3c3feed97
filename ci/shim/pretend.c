/*
 * Wrong behaviours that tell lies about an attribute: the real module is told one value, the application another.
 *
 * An attribute that the application asks for with the value that protects (SENSITIVE=true, EXTRACTABLE=false, ...) goes
 * to the real module with the other one, and the object's handle is remembered.  When the application reads the
 * attribute, it sees what it asked for.  So the protection is claimed, and is not there.
 */
#include "wrong.h"

/* A lie.
 *   type, claimed   the attribute, and the value that is claimed; the real module gets the opposite
 *   history         the attribute that says that it was always so
 *   on_token        about token objects too; else about session objects only */
struct lie {
	CK_ULONG type;
	bool claimed;
	CK_ULONG history;
	bool on_token;
};

/* All objects that the lie is about, and those of them that were generated: their history is claimed as well. */
static struct handles lied_about, generated;

/* The template and the new handle of a call that makes an object; of a key pair, those of the private key. */
static bool making(const struct call *call, int *template, int *handle)
{
	*handle = argument(call->function, 'n');
	*template = argument(call->function, 'T');
	if (call->function == F_C_GenerateKeyPair) {
		*handle += 1;
		*template += 2;
	}
	return *handle >= 0 && *template >= 0 && call->words[*handle] != 0;
}

static CK_RV lie_when_made(struct call *call, const struct lie *lie, int template, int handle)
{
	static unsigned char values[] = { 0, 1 };
	struct ck_attribute list[MAX_ATTRIBUTES];
	CK_ULONG count = template_copy(call, template, list);
	bool lies = template_says(list, count, lie->type, lie->claimed);
	bool copies_lie = call->function == F_C_CopyObject && handles_have(&lied_about, call->words[1]);
	CK_RV rv = CKR_FUNCTION_FAILED;

	if (template_says(list, count, CKA_TOKEN, true) && !lie->on_token)
		lies = copies_lie = false;
	if (lies) {
		template_find(list, count, lie->type)->value = &values[!lie->claimed];
		rv = pass_with(call, template, list, count);
	}
	/* Where the real module does not let itself be told that, nothing is pretended. */
	if (rv != CKR_OK) {
		rv = PASS(call);
		lies = false;
	}
	if (rv == CKR_OK && (lies || copies_lie)) {
		CK_ULONG made = *(CK_ULONG *)pointer(call->words[handle]);

		handles_add(&lied_about, made);
		if (call->function == F_C_GenerateKey || call->function == F_C_GenerateKeyPair)
			handles_add(&generated, made);
	}
	return rv;
}

static CK_RV lie_when_read(struct call *call, const struct lie *lie)
{
	CK_RV rv = PASS(call);
	struct ck_attribute *attribute = pointer(call->words[2]);

	if (attribute == NULL || !handles_have(&lied_about, call->words[1]))
		return rv;
	for (CK_ULONG i = 0; i < call->words[3]; i++, attribute++) {
		if (attribute->value == NULL || attribute->length != 1)
			continue;
		if (attribute->type == lie->type)
			*(unsigned char *)attribute->value = lie->claimed;
		else if (attribute->type == lie->history && handles_have(&generated, call->words[1]))
			*(unsigned char *)attribute->value = 1;
	}
	return rv;
}

static bool on_token(const struct call *call, CK_ULONG session, CK_ULONG object)
{
	unsigned char value = 0;
	struct ck_attribute attribute = { CKA_TOKEN, &value, sizeof value };

	return REAL(call, C_GetAttributeValue, session, object, (CK_ULONG)&attribute, 1) == CKR_OK && value != 0;
}

static CK_RV lie_when_set(struct call *call, const struct lie *lie)
{
	struct ck_attribute list[MAX_ATTRIBUTES];
	CK_ULONG count = template_copy(call, 2, list);
	bool lied = handles_have(&lied_about, call->words[1]);
	CK_RV rv = CKR_OK;

	if (lied && template_says(list, count, lie->type, !lie->claimed))
		return CKR_ATTRIBUTE_READ_ONLY; /* as if it were so */
	if (!template_says(list, count, lie->type, lie->claimed) ||
	    (!lied && !lie->on_token && on_token(call, call->words[0], call->words[1])))
		return PASS(call);
	count = template_drop(list, count, lie->type);
	if (count > 0)
		rv = pass_with(call, 2, list, count);
	if (rv == CKR_OK)
		handles_add(&lied_about, call->words[1]);
	return rv;
}

static CK_RV tell(struct call *call, const struct lie *lie)
{
	int template, handle;
	CK_RV rv;

	if (making(call, &template, &handle))
		return lie_when_made(call, lie, template, handle);
	if (call->function == F_C_GetAttributeValue)
		return lie_when_read(call, lie);
	if (call->function == F_C_SetAttributeValue)
		return lie_when_set(call, lie);
	rv = PASS(call);
	if (rv == CKR_OK && call->function == F_C_DestroyObject) {
		handles_remove(&lied_about, call->words[1]);
		handles_remove(&generated, call->words[1]);
	}
	return rv;
}

/* ---- the behaviours */

/* C_WrapKey wraps keys that must not leave the token. */
CK_RV ignores_extractable(struct call *call)
{
	return tell(call, &(struct lie){ CKA_EXTRACTABLE, false, CKA_NEVER_EXTRACTABLE, false });
}

/* C_DestroyObject destroys what must not be destroyed. */
CK_RV ignores_destroyable(struct call *call)
{
	return tell(call, &(struct lie){ CKA_DESTROYABLE, false, CKA_DESTROYABLE, true });
}

/* CKA_VALUE of a sensitive, extractable key can be read. */
CK_RV readable_sensitive(struct call *call)
{
	return tell(call, &(struct lie){ CKA_SENSITIVE, true, CKA_ALWAYS_SENSITIVE, false });
}

/* Private objects are there before the login, and after the logout. */
CK_RV wrong_login(struct call *call)
{
	return tell(call, &(struct lie){ CKA_PRIVATE, true, CKA_PRIVATE, true });
}

/* A template may say CKA_LOCAL, and each unwrapped key says that it was generated here. */
CK_RV settable_local(struct call *call)
{
	struct ck_attribute list[MAX_ATTRIBUTES], *attribute;
	CK_ULONG count;
	int template, handle;
	CK_RV rv;

	if (making(call, &template, &handle)) {
		count = template_copy(call, template, list);
		if (template_find(list, count, CKA_LOCAL) == NULL) {
			rv = PASS(call);
		} else {
			count = template_drop(list, count, CKA_LOCAL);
			rv = pass_with(call, template, list, count);
		}
		if (rv == CKR_OK && call->function == F_C_UnwrapKey)
			handles_add(&lied_about, *(CK_ULONG *)pointer(call->words[handle]));
		return rv;
	}
	rv = PASS(call);
	if (call->function == F_C_GetAttributeValue && handles_have(&lied_about, call->words[1]) && call->words[2] != 0) {
		attribute = template_find(pointer(call->words[2]), call->words[3], CKA_LOCAL);
		if (attribute != NULL && attribute->value != NULL && attribute->length == 1)
			*(unsigned char *)attribute->value = 1;
	}
	return rv;
}
