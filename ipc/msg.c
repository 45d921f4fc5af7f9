/* msg.c - see msg.h. One table drives both ways; msgpack-c only writes. */
#include "ipc/msg.h"

#include <inttypes.h>
#include <msgpack/pack.h>
#include <stdbool.h>
#include <string.h>

#include "ipc/ledger.h"

/* PAIRS_MAX: more than any message has, so that fields can be added. KEY_MAX: of any key. */
enum { PAIRS_MAX = 16, KEY_MAX = 32, FIELDS_MAX = 7 };

enum field_kind { FIELD_END, FIELD_U64, FIELD_I64, FIELD_TEXT };

/* FIELD_TEXT: min and max are bytes. */
struct field {
    const char *key;
    enum field_kind kind;
    size_t offset;
    uint64_t min, max;
    const char *help;
};

#define FIELD(name, kind, min, max, help)                                                          \
    {                                                                                              \
#name, kind, offsetof(struct msg, name), min, max, help                                    \
    }
#define FIELD_REQUEST                                                                              \
    FIELD(request, FIELD_U64, 1, UINT64_MAX, "the asker's number; the answer carries it")
#define FIELD_COUNT(name, help) FIELD(name, FIELD_I64, 0, INT64_MAX, help)

static const struct {
    const char *name, *way, *help;
    struct field fields[FIELDS_MAX + 1];
} types[MSG_TYPES] = {
    [MSG_BELL] = {"bell",
                  "stage to stage",
                  "look at the ledger",
                  {FIELD(from, FIELD_U64, 0, WRITERS - 1, "who rings: text, dit, vae, gateway")}},
    [MSG_PROMPT] = {"prompt",
                    "client to gateway",
                    "a prompt that takes effect as soon as possible",
                    {FIELD_REQUEST, FIELD(text, FIELD_TEXT, 1, PROMPT_BYTES_MAX, "the prompt")}},
    [MSG_PRESET] = {"preset",
                    "client to gateway",
                    "steps and window that take effect as soon as possible",
                    {FIELD_REQUEST, FIELD(window, FIELD_I64, 3, 24, "as dit.window"),
                     FIELD(text, FIELD_TEXT, 1, LEDGER_STEPS_BYTES - 1, "as dit.steps")}},
    [MSG_FINISH] = {"finish",
                    "client to gateway",
                    "the job finishes its block and its file, and begins no other",
                    {FIELD_REQUEST, FIELD(job, FIELD_U64, 1, INT64_MAX, "number of the job")}},
    [MSG_RECEIPT] = {"receipt",
                     "gateway to client",
                     "decided; after finish: taken, and all numbers are 0",
                     {FIELD_REQUEST, FIELD_COUNT(block, "block of the session"),
                      FIELD_COUNT(latent, "its first latent frame"),
                      FIELD_COUNT(frame, "its first pixel frame"),
                      FIELD_COUNT(time_ms, "time of that frame in the video"),
                      FIELD_COUNT(tokens, "of the prompt, used"),
                      FIELD_COUNT(tokens_full, "of the prompt, before it was cut")}},
    [MSG_REFUSED] = {"refused",
                     "gateway to client",
                     "not taken",
                     {FIELD_REQUEST, FIELD(status, FIELD_I64, 0, 255, "exit status of the reason"),
                      FIELD(text, FIELD_TEXT, 0, PROMPT_BYTES_MAX, "the reason, one line")}},
};

static void print_field(FILE *f, const struct field *d)
{
    static const char *const kinds[] = {"", "u64", "i64", "text"};
    const bool is_text = d->kind == FIELD_TEXT;
    fprintf(f, "| | | `%s` | %s | %s%" PRIu64 " to ", d->key, kinds[d->kind],
            is_text ? "" : "from ", d->min);
    if (d->max == UINT64_MAX) fprintf(f, "2^64 - 1");
    else if (d->max == INT64_MAX) fprintf(f, "2^63 - 1");
    else fprintf(f, "%" PRIu64, d->max);
    fprintf(f, "%s | %s |\n", is_text ? " bytes" : "", d->help);
}

void msg_print_help(FILE *f)
{
    fprintf(f, "| message | way | field | type | bounds | meaning |\n");
    fprintf(f, "| --- | --- | --- | --- | --- | --- |\n");
    for (int i = 0; i < MSG_TYPES; i++) {
        fprintf(f, "| `%s` | %s | | | | %s |\n", types[i].name, types[i].way, types[i].help);
        for (const struct field *d = types[i].fields; d->kind != FIELD_END; d++) print_field(f, d);
    }
}

/* --- packing ------------------------------------------------------------------------------- */

struct buffer {
    uint8_t *at;
    size_t n, cap;
    bool is_over;
};

static int buffer_write(void *self, const char *bytes, size_t n)
{
    struct buffer *b = self;
    if (b->is_over || n > b->cap - b->n) {
        b->is_over = true;
        return -1;
    }
    memcpy(b->at + b->n, bytes, n);
    b->n += n;
    return 0;
}

static void pack_text(msgpack_packer *pk, const char *s, size_t n)
{
    msgpack_pack_str(pk, n);
    msgpack_pack_str_body(pk, s, n);
}

/* False: out of bounds. */
static bool pack_field(msgpack_packer *pk, const struct msg *m, const struct field *f)
{
    const char *at = (const char *)m + f->offset;
    uint64_t u = 0;
    int64_t i = 0;
    pack_text(pk, f->key, strlen(f->key));
    switch (f->kind) {
    case FIELD_U64:
        memcpy(&u, at, sizeof u);
        msgpack_pack_uint64(pk, u);
        return u >= f->min && u <= f->max;
    case FIELD_I64:
        memcpy(&i, at, sizeof i);
        msgpack_pack_int64(pk, i);
        return i >= 0 && (uint64_t)i >= f->min && (uint64_t)i <= f->max;
    case FIELD_TEXT:
        u = strnlen(at, PROMPT_BYTES_MAX + 1);
        if (u < f->min || u > f->max) return false;
        pack_text(pk, at, u);
        return true;
    case FIELD_END:
        break;
    }
    return false;
}

size_t msg_pack(const struct msg *m, uint8_t *buf, size_t cap)
{
    struct buffer b = {.at = buf, .cap = cap};
    msgpack_packer pk;
    uint32_t n_fields = 0;
    MUST(m->type >= 0 && m->type < MSG_TYPES);
    const struct field *fields = types[m->type].fields;
    while (fields[n_fields].kind != FIELD_END) n_fields++;

    msgpack_packer_init(&pk, &b, buffer_write);
    msgpack_pack_map(&pk, n_fields + 2);
    pack_text(&pk, "v", 1);
    msgpack_pack_int(&pk, MSG_VERSION);
    pack_text(&pk, "t", 1);
    pack_text(&pk, types[m->type].name, strlen(types[m->type].name));
    for (uint32_t i = 0; i < n_fields; i++)
        if (!pack_field(&pk, m, &fields[i])) return 0;
    return b.is_over ? 0 : b.n;
}

/* --- unpacking: a cursor that never allocates and never looks past the end -------------------- */

enum value_kind { VALUE_OTHER, VALUE_UINT, VALUE_NEGATIVE, VALUE_TEXT };

struct value {
    enum value_kind kind;
    uint64_t u;       /* VALUE_UINT */
    const uint8_t *s; /* VALUE_TEXT */
    size_t n;
};

struct pair {
    const uint8_t *key;
    size_t n_key;
    struct value value;
};

struct cursor {
    const uint8_t *at, *end;
};

static size_t left(const struct cursor *c)
{
    return (size_t)(c->end - c->at);
}

/* n_bytes big-endian bytes, 1 to 8. */
static err_t read_be(struct cursor *c, size_t n_bytes, uint64_t *out)
{
    uint64_t v = 0;
    if (left(c) < n_bytes) return FAIL(ERR_DATA, "message: cut short");
    for (size_t i = 0; i < n_bytes; i++) v = v << 8 | *c->at++;
    *out = v;
    return OK;
}

static err_t skip_bytes(struct cursor *c, uint64_t n_bytes)
{
    if (left(c) < n_bytes) return FAIL(ERR_DATA, "message: cut short");
    c->at += n_bytes;
    return OK;
}

/* RFC 3629: no overlong form, no surrogate, nothing above U+10FFFF. NUL is refused as well, since
 * text is held NUL-terminated. */
static bool is_text(const uint8_t *s, size_t n)
{
    for (size_t i = 0; i < n;) {
        const uint8_t c = s[i];
        const size_t n_more = c < 0x80 ? 0 : c < 0xe0 ? 1 : c < 0xf0 ? 2 : 3;
        uint8_t lo = 0x80, hi = 0xbf;
        if (c == 0 || (c >= 0x80 && c < 0xc2) || c > 0xf4 || n - i <= n_more) return false;
        if (c == 0xe0) lo = 0xa0;
        if (c == 0xed) hi = 0x9f;
        if (c == 0xf0) lo = 0x90;
        if (c == 0xf4) hi = 0x8f;
        for (size_t k = 1; k <= n_more; k++) {
            if (s[i + k] < lo || s[i + k] > hi) return false;
            lo = 0x80, hi = 0xbf;
        }
        i += n_more + 1;
    }
    return true;
}

static err_t read_text(struct cursor *c, uint64_t n_bytes, struct value *v)
{
    err_t e = OK;
    v->kind = VALUE_TEXT;
    v->s = c->at;
    v->n = (size_t)n_bytes;
    TRY(skip_bytes(c, n_bytes));
    if (!is_text(v->s, v->n)) e = FAIL(ERR_DATA, "message: text that is not UTF-8, or has NUL");
out:
    return e;
}

/* n_bytes of two's complement. */
static err_t read_signed(struct cursor *c, size_t n_bytes, struct value *v)
{
    const err_t e = read_be(c, n_bytes, &v->u);
    const bool is_negative = e == OK && (v->u >> (8 * n_bytes - 1)) != 0;
    v->kind = is_negative ? VALUE_NEGATIVE : VALUE_UINT;
    return e;
}

/* One plain value. Arrays, maps and extension types are refused by their first byte, so a header
 * that promises four billion elements costs nothing. */
static err_t read_value(struct cursor *c, struct value *v)
{
    err_t e = OK;
    uint64_t tag = 0, n = 0;
    *v = (struct value){.kind = VALUE_OTHER};
    TRY(read_be(c, 1, &tag));
    if (tag <= 0x7f || tag >= 0xe0) { /* fixint */
        v->kind = tag <= 0x7f ? VALUE_UINT : VALUE_NEGATIVE;
        v->u = tag;
    } else if (tag >= 0xa0 && tag <= 0xbf) { /* fixstr */
        TRY(read_text(c, tag & 0x1f, v));
    } else if (tag == 0xc0 || tag == 0xc2 || tag == 0xc3) { /* nil, false, true */
        e = OK;
    } else if (tag >= 0xc4 && tag <= 0xc6) { /* bin 8, 16, 32 */
        TRY(read_be(c, (size_t)1 << (tag - 0xc4), &n));
        TRY(skip_bytes(c, n));
    } else if (tag == 0xca || tag == 0xcb) { /* float 32, 64 */
        TRY(skip_bytes(c, tag == 0xca ? 4 : 8));
    } else if (tag >= 0xcc && tag <= 0xcf) { /* uint 8 to 64 */
        v->kind = VALUE_UINT;
        TRY(read_be(c, (size_t)1 << (tag - 0xcc), &v->u));
    } else if (tag >= 0xd0 && tag <= 0xd3) { /* int 8 to 64 */
        TRY(read_signed(c, (size_t)1 << (tag - 0xd0), v));
    } else if (tag >= 0xd9 && tag <= 0xdb) { /* str 8, 16, 32 */
        TRY(read_be(c, (size_t)1 << (tag - 0xd9), &n));
        TRY(read_text(c, n, v));
    } else {
        e = FAIL(ERR_DATA, "message: value of type 0x%02x, only plain values are taken",
                 (unsigned)tag);
    }
out:
    return e;
}

static const struct pair *find(const struct pair *pairs, size_t n_pairs, const void *key, size_t n)
{
    for (size_t i = 0; i < n_pairs; i++)
        if (pairs[i].n_key == n && memcmp(pairs[i].key, key, n) == 0) return &pairs[i];
    return NULL;
}

/* The whole of the bytes as one flat map. Pairs point into the bytes. */
static err_t read_map(struct cursor c, struct pair pairs[PAIRS_MAX], size_t *n_pairs)
{
    err_t e = OK;
    uint64_t tag = 0, n = 0;
    struct value key;
    TRY(read_be(&c, 1, &tag));
    if (tag >= 0x80 && tag <= 0x8f) n = tag & 0x0f;
    else if (tag == 0xde || tag == 0xdf) TRY(read_be(&c, tag == 0xde ? 2 : 4, &n));
    else return FAIL(ERR_DATA, "message: not a map");
    if (n > PAIRS_MAX) return FAIL(ERR_DATA, "message: %" PRIu64 " fields", n);

    for (size_t i = 0; i < n; i++) {
        TRY(read_value(&c, &key));
        if (key.kind != VALUE_TEXT || key.n == 0 || key.n > KEY_MAX)
            return FAIL(ERR_DATA, "message: a key is not a word of 1 to %d bytes", KEY_MAX);
        if (find(pairs, i, key.s, key.n))
            return FAIL(ERR_DATA, "message: field %.*s twice", (int)key.n, (const char *)key.s);
        pairs[i].key = key.s;
        pairs[i].n_key = key.n;
        TRY(read_value(&c, &pairs[i].value));
    }
    if (left(&c) != 0) return FAIL(ERR_DATA, "message: %zu bytes after its end", left(&c));
    *n_pairs = (size_t)n;
out:
    return e;
}

static err_t unpack_field(struct msg *m, const struct field *f, const struct value *v)
{
    char *to = (char *)m + f->offset;
    const bool is_text_field = f->kind == FIELD_TEXT;
    if (v->kind != (is_text_field ? VALUE_TEXT : VALUE_UINT))
        return FAIL(ERR_DATA, "message: %s is not %s", f->key,
                    is_text_field ? "text" : "a whole number from 0");
    const uint64_t n = is_text_field ? v->n : v->u;
    if (n < f->min || n > f->max)
        return FAIL(ERR_DATA, "message: %s is %" PRIu64 "%s, not %" PRIu64 " to %" PRIu64, f->key,
                    n, is_text_field ? " bytes" : "", f->min, f->max);
    if (is_text_field) {
        memcpy(to, v->s, v->n);
        to[v->n] = '\0';
    } else {
        memcpy(to, &n, sizeof n); /* an int64 field's max is INT64_MAX: the same bytes */
    }
    return OK;
}

static err_t type_of(const struct value *v, enum msg_type *type)
{
    if (v->kind != VALUE_TEXT || v->n > KEY_MAX) return FAIL(ERR_DATA, "message: t is not a word");
    for (int i = 0; i < MSG_TYPES; i++)
        if (strlen(types[i].name) == v->n && memcmp(types[i].name, v->s, v->n) == 0) {
            *type = (enum msg_type)i;
            return OK;
        }
    return FAIL(ERR_DATA, "message: unknown type %.*s", (int)v->n, (const char *)v->s);
}

err_t msg_unpack(struct msg *m, const uint8_t *buf, size_t n_bytes)
{
    err_t e = OK;
    struct pair pairs[PAIRS_MAX];
    size_t n_pairs = 0;
    const struct pair *p;
    if (n_bytes > MSG_BYTES_MAX) return FAIL(ERR_DATA, "message: %zu bytes", n_bytes);
    memset(m, 0, offsetof(struct msg, text) + 1); /* the text ends where it begins */

    TRY(read_map((struct cursor){buf, buf + n_bytes}, pairs, &n_pairs));
    p = find(pairs, n_pairs, "v", 1);
    if (!p || p->value.kind != VALUE_UINT) return FAIL(ERR_DATA, "message: without a version");
    if (p->value.u != MSG_VERSION)
        return FAIL(ERR_DATA, "message: version %" PRIu64 ", this program speaks %d", p->value.u,
                    MSG_VERSION);
    p = find(pairs, n_pairs, "t", 1);
    if (!p) return FAIL(ERR_DATA, "message: without a type");
    TRY(type_of(&p->value, &m->type));
    for (const struct field *f = types[m->type].fields; f->kind != FIELD_END; f++) {
        p = find(pairs, n_pairs, f->key, strlen(f->key));
        if (!p) return FAIL(ERR_DATA, "message: %s without %s", types[m->type].name, f->key);
        TRY(unpack_field(m, f, &p->value));
    }
out:
    return e;
}
