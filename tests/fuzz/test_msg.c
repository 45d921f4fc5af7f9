/* test_msg.c - a message from the wire; one that is taken is packed and read to the same. */
#include "tests/fuzz/fuzz.h"

#include "ipc/msg.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static struct msg m, again;
    static uint8_t wire[MSG_BYTES_MAX];
    memset(&m, 0, sizeof m);
    const err_t e = msg_unpack(&m, data, n);
    if (e != OK) {
        fuzz_refused(e, ERR_DATA, ERR_DATA);
        return 0;
    }
    const size_t n_wire = msg_pack(&m, wire, sizeof wire);
    MUST(n_wire > 0);
    memset(&again, 0, sizeof again);
    MUST(msg_unpack(&again, wire, n_wire) == OK);
    MUST(again.type == m.type && again.request == m.request && strcmp(again.text, m.text) == 0);
    MUST(again.from == m.from && again.block == m.block && again.latent == m.latent);
    MUST(again.frame == m.frame && again.time_ms == m.time_ms && again.status == m.status);
    return 0;
}
