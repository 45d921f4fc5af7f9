"""Trains small unigram models with umT5's settings and writes the ids that Hugging Face's
tokenizer gives for prompts.txt. See README.md for versions; run in an environment that has them:

    python make.py

Writes per variant: spiece.model, tokenizer.json without vocabulary and character map (the product
takes both from spiece.model), tokenizer_config.json, ids.txt; and clean.txt from ftfy and html.
"""

import html
import io
import json
import os
import re
import shutil
import tempfile

import ftfy
import sentencepiece
import tokenizers
import transformers

HERE = os.path.dirname(os.path.abspath(__file__))

# Text to train on, our own: small, in several scripts, so that pieces of several characters exist.
WORDS = (
    "a the red blue green ball balls cube rolls rolling rolled slowly slow to right left on of in "
    "wooden table front background soft light shadow long evening sky night rain raining rains "
    "camera moves moving closer close-up cat cats dog dogs walk walks walking street city snow "
    "café naïve résumé über straße niño élève cinematic realistic style film grain 35mm 4k "
    "it's don't aaaa aaa aa ---- ... !!! ??? hello world 1 2 10 2024 100% # & < > ( ) [ ] , . ; : "
    "一只 红色 的 球 在 木桌 上 滚动 夜晚 下雨 猫 走 过 街道 赤い ボール が テーブル の 上 で 転がる "
    "빨간 공이 천천히 굴러간다 красный мяч катится по столу ночью идёт дождь كرة حمراء على الطاولة "
    "กลิ้ง ลูกบอล नमस्ते दुनिया ﬁlm file ½ ² ™ ー ガラス ｶﾞﾗｽ").split()


def sentences():
    seed = 12345
    for _ in range(3000):
        line = []
        for _ in range(3 + seed % 9):
            seed = (seed * 1103515245 + 12345) % 2 ** 31
            line.append(WORDS[(seed >> 8) % len(WORDS)])
        yield " ".join(line)


def train(path, byte_fallback, rule):
    out = io.BytesIO()
    more = {"normalization_rule_name": rule}
    if rule == "rules":
        tsv = os.path.join(tempfile.mkdtemp(), "rules.tsv")
        with open(tsv, "w") as f:  # code points: from, to; the last one maps to nothing
            f.write("41\t61\n65 301\tE9\n304B 3099\t304C\nFB01\t66 69\n2122\t54 4D\n200B\t\n")
        more = {"normalization_rule_tsv": tsv}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=sentences(), model_writer=out, model_type="unigram",
        vocab_size=640, pad_id=0, eos_id=1, bos_id=2, unk_id=3, pad_piece="<pad>",
        eos_piece="</s>", bos_piece="<s>", unk_piece="<unk>", byte_fallback=byte_fallback,
        character_coverage=1.0, hard_vocab_limit=False, num_threads=1, minloglevel=2,
        split_digits=False, max_sentencepiece_length=16, **more)
    with open(path, "wb") as f:
        f.write(out.getvalue())


# name: byte fallback in the model, normaliser, legacy, what is changed in tokenizer.json
def as_converted(doc, _):
    """As transformers converts it: no byte fallback, spaces stripped and joined."""
    doc["pre_tokenizer"]["prepend_scheme"] = "always"


def with_bytes(doc, config):
    """Byte fallback on, only the joining of spaces, and the older way to say how words begin; added
    tokens that take the space on their left, and one that is the beginning of others."""
    doc["model"]["byte_fallback"] = True
    steps = doc["normalizer"]["normalizers"]
    steps[:] = [s for s in steps if s["type"] != "Strip"]
    steps[-1]["content"] = " "
    doc["pre_tokenizer"] = {"type": "Metaspace", "replacement": "\u2581", "add_prefix_space": True}
    for t in doc["added_tokens"]:
        t["lstrip"] = "extra_id" in t["content"]
    first = dict(doc["added_tokens"][-1], id=doc["added_tokens"][-1]["id"] + 1)
    first["content"] = "<extra_id_"
    doc["added_tokens"].append(first)
    config["added_tokens_decoder"] = {str(t["id"]): {k: v for k, v in t.items() if k != "id"}
                                      for t in doc["added_tokens"]}


def with_strips(doc, config):
    """Added tokens that take the spaces on their right, as the configuration alone says."""
    for t in config["added_tokens_decoder"].values():
        if "extra_id" in t["content"]:
            t["rstrip"] = True
    doc["pre_tokenizer"]["prepend_scheme"] = "first"


VARIANTS = {
    "nmt": (True, "nmt_nfkc", True, as_converted),
    "bytes": (True, "rules", True, with_bytes),
    "plain": (False, "identity", False, with_strips),
}
TEXT_LEN = 24


def build(name):
    byte_fallback, rule, legacy, change = VARIANTS[name]
    folder = os.path.join(HERE, name)
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    model = os.path.join(folder, "spiece.model")
    train(model, byte_fallback, rule)
    full = tempfile.mkdtemp()
    tok = transformers.T5TokenizerFast(vocab_file=model, extra_ids=12, legacy=legacy)
    tok.save_pretrained(full)
    shutil.copy(model, full)
    json_path = os.path.join(full, "tokenizer.json")
    with open(json_path) as f:
        doc = json.load(f)
    config_path = os.path.join(full, "tokenizer_config.json")
    with open(config_path) as f:
        config = json.load(f)
    change(doc, config)
    with open(json_path, "w") as f:
        json.dump(doc, f)
    with open(config_path, "w") as f:
        json.dump(config, f, indent=1)
    reference = transformers.AutoTokenizer.from_pretrained(full)
    assert reference.is_fast
    told = json.loads(reference.backend_tokenizer.to_str())
    meant = json.loads(tokenizers.Tokenizer.from_str(json.dumps(doc)).to_str())
    for part in ("normalizer", "pre_tokenizer", "model"):
        assert told[part] == meant[part], part
    write_ids(reference, folder)
    doc["model"]["vocab"] = []
    for s in [doc["normalizer"]] + doc["normalizer"].get("normalizers", []):
        if "precompiled_charsmap" in s:
            s["precompiled_charsmap"] = ""
    with open(os.path.join(folder, "tokenizer.json"), "w") as f:
        json.dump(doc, f, indent=1, ensure_ascii=False)
        f.write("\n")
    shutil.copy(config_path, folder)
    shutil.rmtree(full)


def prompts():
    """prompts.txt: a JSON string a line, so that control characters can be seen."""
    with open(os.path.join(HERE, "prompts.txt"), encoding="utf-8") as f:
        return [json.loads(line) for line in f if line.strip()]


def write_ids(reference, folder):
    """A line a prompt: how many tokens the whole text has, then the ids cut to TEXT_LEN."""
    with open(os.path.join(folder, "ids.txt"), "w") as f:
        for text in prompts():
            whole = reference(text, add_special_tokens=True)["input_ids"]
            cut = reference(text, padding="max_length", truncation=True, max_length=TEXT_LEN,
                            add_special_tokens=True)
            ids = cut["input_ids"][:sum(cut["attention_mask"])]
            f.write("%d: %s\n" % (len(whole), " ".join(map(str, ids))))


def clean(text):
    """Wan 2.1's cleaning for its `whitespace` mode."""
    text = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
    return re.sub(r"\s+", " ", text).strip()


def write_clean():
    with open(os.path.join(HERE, "clean.txt"), "w", encoding="ascii") as f:
        for text in prompts():
            f.write(json.dumps(clean(text)) + "\n")


if __name__ == "__main__":
    for n in VARIANTS:
        build(n)
    write_clean()
    print("transformers", transformers.__version__, "tokenizers", tokenizers.__version__,
          "sentencepiece", sentencepiece.__version__, "ftfy", ftfy.__version__)
