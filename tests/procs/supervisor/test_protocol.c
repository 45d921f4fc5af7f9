/* test_protocol.c - the jobs of bench's protocols. */
#include "procs/supervisor/protocol.h"

#include "tests/scratch.h"

static struct conf c;

static int open_conf(void **state)
{
    (void)state;
    conf_default(&c);
    c.run.seed = 100;
    return 0;
}

static void test_calls_are_videos_of_one_block(void **state)
{
    (void)state;
    struct job *job = NULL;
    check_ok(protocol_calls(&job, &c, &(struct protocol_length){.n_blocks = 20, .n_warm = 5}));
    assert_int_equal(job->n_videos, 20);
    for (int i = 0; i < 20; i++) {
        const struct job_video *v = &job->videos[i];
        assert_true(v->n_blocks == 1 && v->n_prompts == 1 && v->prompts[0].at_block == 0);
        assert_int_equal(v->seed, 100 + i);
        if (i >= PROTOCOL_PROMPTS) /* by turns */
            assert_string_equal(v->prompts[0].text, job->videos[i - 8].prompts[0].text);
        for (int k = i > 7 ? i - 7 : 0; k < i; k++)
            assert_string_not_equal(v->prompts[0].text, job->videos[k].prompts[0].text);
    }
    job_free(&job);
}

/* Ten calls with old prompts, one with a new one, and so on. */
static void test_switches_have_texts_of_their_own(void **state)
{
    (void)state;
    const struct protocol_length n = {.n_blocks = 5 + 3 * 11, .n_warm = 5, .switch_every = 11};
    struct job *job = NULL;
    int n_new = 0;
    check_ok(protocol_calls(&job, &c, &n));
    for (int i = 0; i < job->n_videos; i++) {
        bool is_new = true;
        for (int k = 0; k < i; k++)
            is_new &= strcmp(job->videos[k].prompts[0].text, job->videos[i].prompts[0].text) != 0;
        if (i < PROTOCOL_PROMPTS) continue;
        assert_int_equal(is_new, i == 15 || i == 26 || i == 37);
        assert_int_equal(is_new, protocol_is_switch(&n, i));
        n_new += is_new;
    }
    assert_int_equal(n_new, 3);
    job_free(&job);
}

static void test_a_stream_switches_in_one_video(void **state)
{
    (void)state;
    const struct protocol_length n = {.n_blocks = 50 + 2 * 11, .n_warm = 50, .switch_every = 11};
    struct job *job = NULL;
    check_ok(protocol_stream(&job, &c, &n));
    assert_int_equal(job->n_videos, 1);
    const struct job_video *v = &job->videos[0];
    assert_true(v->n_blocks == 72 && v->n_prompts == 3 && v->seed == 100);
    assert_int_equal(v->prompts[0].at_block, 0);
    assert_int_equal(v->prompts[1].at_block, 60);
    assert_int_equal(v->prompts[2].at_block, 71);
    assert_string_not_equal(v->prompts[1].text, v->prompts[2].text);
    job_free(&job);
    check_ok(protocol_stream(&job, &c, &(struct protocol_length){.n_warm = 50}));
    assert_true(job->videos[0].n_blocks == 0 && job->videos[0].n_prompts == 1);
    job_free(&job);
}

/* What a pipeline reads is what was made. */
static void test_a_job_survives_its_file(void **state)
{
    (void)state;
    struct job *job = NULL, *read = NULL;
    check_ok(protocol_calls(&job, &c, &(struct protocol_length){.n_blocks = 3}));
    job->id = 1;
    check_ok(job_write(scratch_path("job.json"), job));
    check_ok(job_read(scratch_path("job.json"), &read));
    assert_int_equal(read->n_videos, 3);
    assert_string_equal(read->videos[2].prompts[0].text, job->videos[2].prompts[0].text);
    job_free(&job);
    job_free(&read);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_calls_are_videos_of_one_block),
        cmocka_unit_test(test_switches_have_texts_of_their_own),
        cmocka_unit_test(test_a_stream_switches_in_one_video),
        cmocka_unit_test_setup_teardown(test_a_job_survives_its_file, scratch_open, scratch_close),
    };
    return cmocka_run_group_tests(tests, open_conf, NULL);
}
