// spm.cc - see spm.h. The only file that knows sentencepiece.
#include "procs/text/spm.h"

#include <sentencepiece_processor.h>

#include <exception>
#include <new>
#include <string>
#include <vector>

struct spm {
    std::vector<std::string> pieces;
    std::vector<float> scores;
    int32_t unk = -1;
    bool has_bytes = false;
    std::string charsmap;
};

namespace
{

// A cursor over a protobuf message; the library has no way to ask for the two fields that are
// wanted of it (sentencepiece_model.proto: ModelProto 2 and 3, TrainerSpec 3, NormalizerSpec 2).
struct field {
    uint64_t number = 0, value = 0; // value: of a varint
    const uint8_t *at = nullptr;    // of a length-delimited field
    size_t n_bytes = 0;
};

bool read_varint(const uint8_t **at, const uint8_t *end, uint64_t *out)
{
    *out = 0;
    for (int shift = 0; shift < 64 && *at < end; shift += 7) {
        const uint8_t byte = *(*at)++;
        *out |= static_cast<uint64_t>(byte & 0x7f) << shift;
        if (byte < 0x80) return true;
    }
    return false;
}

bool read_field(const uint8_t **at, const uint8_t *end, field *f)
{
    uint64_t tag = 0, n = 0;
    *f = field();
    if (!read_varint(at, end, &tag)) return false;
    f->number = tag >> 3;
    switch (tag & 7) {
    case 0:
        return read_varint(at, end, &f->value);
    case 1:
        n = 8;
        break;
    case 2:
        if (!read_varint(at, end, &n)) return false;
        break;
    case 5:
        n = 4;
        break;
    default:
        return false;
    }
    if (n > static_cast<uint64_t>(end - *at)) return false;
    f->at = *at;
    f->n_bytes = static_cast<size_t>(n);
    *at += n;
    return true;
}

// Field `inner` of the message that is field `outer`; the last one counts, as in protobuf.
field find(const uint8_t *at, const uint8_t *end, uint64_t outer, uint64_t inner)
{
    field f, g, found;
    while (at < end && read_field(&at, end, &f)) {
        if (f.number != outer || !f.at) continue;
        const uint8_t *in = f.at, *in_end = f.at + f.n_bytes;
        while (in < in_end && read_field(&in, in_end, &g))
            if (g.number == inner) found = g;
    }
    return found;
}

constexpr uint64_t kUnigram = 1;

err_t read_model(struct spm *s, const char *name, const void *data, size_t n_bytes)
{
    sentencepiece::SentencePieceProcessor model;
    const std::string bytes(static_cast<const char *>(data), n_bytes);
    if (!model.LoadFromSerializedProto(bytes).ok())
        return FAIL(ERR_DATA, "%s: not a sentencepiece model", name);
    const auto *at = reinterpret_cast<const uint8_t *>(bytes.data());
    const field type = find(at, at + n_bytes, 2, 3), map = find(at, at + n_bytes, 3, 2);
    if (type.number != 0 && type.value != kUnigram)
        return FAIL(ERR_DATA, "%s: a sentencepiece model, but not a unigram model", name);
    if (map.at) s->charsmap.assign(reinterpret_cast<const char *>(map.at), map.n_bytes);
    const int n = model.GetPieceSize();
    s->pieces.reserve(static_cast<size_t>(n));
    s->scores.reserve(static_cast<size_t>(n));
    for (int i = 0; i < n; i++) {
        s->pieces.push_back(model.IdToPiece(i));
        s->scores.push_back(model.GetScore(i));
        if (model.IsByte(i)) s->has_bytes = true;
    }
    s->unk = model.unk_id();
    if (s->unk < 0 || s->unk >= n) return FAIL(ERR_DATA, "%s: no unknown piece", name);
    return OK;
}

} // namespace

err_t spm_open(struct spm **out, const char *name, const void *data, size_t n_bytes)
{
    struct spm *s = nullptr;
    err_t e = OK;
    try {
        s = new spm;
        e = read_model(s, name, data, n_bytes);
    } catch (const std::bad_alloc &) {
        e = FAIL(ERR_NOMEM, "%s: no memory for its pieces", name);
    } catch (const std::exception &x) {
        e = FAIL(ERR_DATA, "%s: %.200s", name, x.what());
    } catch (...) {
        e = FAIL(ERR_DATA, "%s: not a sentencepiece model", name);
    }
    if (e == OK) *out = s;
    else delete s;
    return e;
}

void spm_close(struct spm **s)
{
    delete *s;
    *s = nullptr;
}

int32_t spm_count(const struct spm *s)
{
    return static_cast<int32_t>(s->pieces.size());
}

const char *spm_piece(const struct spm *s, int32_t id, size_t *n_bytes, float *score)
{
    const auto i = static_cast<size_t>(id);
    MUST(id >= 0 && i < s->pieces.size());
    *n_bytes = s->pieces[i].size();
    *score = s->scores[i];
    return s->pieces[i].c_str();
}

int32_t spm_unk(const struct spm *s)
{
    return s->unk;
}

bool spm_has_bytes(const struct spm *s)
{
    return s->has_bytes;
}

const uint8_t *spm_charsmap(const struct spm *s, size_t *n_bytes)
{
    *n_bytes = s->charsmap.size();
    return reinterpret_cast<const uint8_t *>(s->charsmap.data());
}
