"""tokens.py - a sentencepiece unigram model: made from the world's prompts by sentencepiece, read and
used without it. Our prompts are plain ASCII, so that casefolding is all of its normaliser.

    python3 tests/demo_model/tokens.py configs/demo/spiece.model     # trains it anew
"""
import collections
import io
import math
import random
import struct
import sys

import words as W

EOS, UNK = 1, 3
SPACE = "\u2581"


def _fields(data):
    """(number, value) of a message of protocol buffers."""
    at = 0

    def varint():
        nonlocal at
        n = shift = 0
        while True:
            byte = data[at]
            at += 1
            n |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return n

    while at < len(data):
        key = varint()
        kind = key & 7
        if kind == 0:
            value = varint()
        else:
            n = {1: 8, 5: 4}.get(kind) or varint()
            value, at = data[at:at + n], at + n
        yield key >> 3, value


class Tokenizer:
    def __init__(self, path):
        with open(path, "rb") as f:
            pieces = [dict(_fields(v)) for k, v in _fields(f.read()) if k == 1]
        self.pieces = {p[1].decode(): (i, struct.unpack("<f", p[2])[0])
                       for i, p in enumerate(pieces) if p.get(3, 1) == 1}
        self.vocab = len(pieces)
        self.worst = min(s for _, s in self.pieces.values()) - 10

    def word(self, word):
        """The likeliest pieces of one word (Viterbi)."""
        best = [(0.0, [])] + [None] * len(word)
        for end in range(1, len(word) + 1):
            for begin in range(end):
                found = self.pieces.get(word[begin:end])
                if found is None and end - begin == 1:
                    found = (UNK, self.worst)
                if found is not None:
                    score = best[begin][0] + found[1]
                    if best[end] is None or score > best[end][0]:
                        best[end] = (score, best[begin][1] + [found[0]])
        return best[-1][1]

    def encode(self, text):
        return [i for w in text.casefold().split() for i in self.word(SPACE + w)] + [EOS]


def _piece(text, score, kind):
    """A SentencePiece message as field 1 of the model; kinds: 1 normal, 2 unknown, 3 control."""
    text = text.encode()
    body = b"\x0a" + bytes([len(text)]) + text + b"\x15" + struct.pack("<f", score)
    body += bytes([0x18, kind])
    return b"\x0a" + bytes([len(body)]) + body


def train(path):
    """Every word of the world is a piece, as likely as it is said; what is no word falls apart into
    letters. The trainer of sentencepiece gives the normaliser; left to itself it finds no whole
    words where there are as few as here."""
    import sentencepiece
    rng, out, n = random.Random(1), io.BytesIO(), 20000
    said = [W.said(W.draw(rng), rng) for _ in range(n)]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(said), model_writer=out, model_type="unigram", vocab_size=64,
        pad_id=0, eos_id=1, bos_id=2, unk_id=3, pad_piece="<pad>", eos_piece="</s>",
        bos_piece="<s>", unk_piece="<unk>", normalization_rule_name="nmt_nfkc_cf", num_threads=1,
        minloglevel=2)
    words = collections.Counter(w for t in said for w in t.casefold().replace(",", "").replace(
        ".", "").split())
    total = sum(words.values())
    pieces = [_piece("<pad>", 0, 3), _piece("</s>", 0, 3), _piece("<s>", 0, 3),
              _piece("<unk>", 0, 2)]
    pieces += [_piece(SPACE + w, math.log(k / total), 1) for w, k in words.most_common()]
    pieces += [_piece(c, -14.0, 1) for c in SPACE + ".,-'0123456789abcdefghijklmnopqrstuvwxyz"]
    with open(path, "wb") as f:
        f.write(b"".join(pieces + [_message(k, v) for k, v in _fields(out.getvalue()) if k != 1]))


def _message(number, value):
    size, n = b"", len(value)
    while n > 127:
        size, n = size + bytes([n & 127 | 128]), n >> 7
    return bytes([number << 3 | 2]) + size + bytes([n]) + value


if __name__ == "__main__":
    train(sys.argv[1])
