/* test_script.c - the file of generate --script and --prewarm. */
#include "tests/fuzz/fuzz.h"

#include "common/prompt.h"
#include "procs/supervisor/script.h"

/* The first byte chooses the configuration; the rest is the file. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const int64_t at[] = {0, 3, 7};
    struct job_video *videos = NULL;
    int32_t n_videos = 0;
    if (n < 1) return 0;
    const struct script_conf conf = {.block = 1 + (data[0] & 3),
                                     .n_blocks = data[0] & 4 ? 0 : 20,
                                     .at = data[0] & 8 ? at : NULL,
                                     .n_at = data[0] & 8 ? 3 : 0};
    const err_t e = script_read(fuzz_file("f.jsonl", data + 1, n - 1), &conf, &videos, &n_videos);
    if (e != OK) {
        fuzz_refused(e, ERR_DATA, ERR_LIMIT);
        MUST(!videos);
        return 0;
    }
    for (int32_t v = 0; v < n_videos; v++)
        for (int32_t i = 0; i < videos[v].n_prompts; i++) {
            const struct job_prompt *p = &videos[v].prompts[i];
            MUST(prompt_check(p->text, strlen(p->text)) == OK);
            MUST(i == 0 || p->at_block >= p[-1].at_block);
            MUST(p->at_block >= 0 && (conf.n_blocks == 0 || p->at_block < conf.n_blocks));
        }
    job_videos_free(&videos, n_videos);
    return 0;
}
