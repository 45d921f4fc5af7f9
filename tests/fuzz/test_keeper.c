/* test_keeper.c - packets to the keeper, over its socket. */
#include "tests/fuzz/fuzz.h"

#include <sys/socket.h>
#include <sys/un.h>

#include "common/log.h"
#include "ipc/keeper.h"
#include "procs/keeper/keeperd.h"

static char dir[40];
static struct keeperd *keeper;

static void end(void)
{
    char command[64];
    keeperd_close(&keeper);
    snprintf(command, sizeof command, "rm -rf %s", dir);
    MUST(system(command) == 0);
}

static int connected(void)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    const int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (!keeper) {
        strcpy(dir, "/dev/shm/longlived-fuzz-XXXXXX");
        setenv("LONGLIVED_LOG", "error", 1);
        log_open("fuzz");
        MUST(mkdtemp(dir) && keeperd_open(&keeper, dir) == OK && atexit(end) == 0);
    }
    snprintf(at.sun_path, sizeof at.sun_path, "%s/keeper.sock", dir);
    MUST(fd >= 0 && connect(fd, (struct sockaddr *)&at, sizeof at) == 0);
    return fd;
}

static void hear(int fd)
{
    struct keeper_reply rep;
    for (;;) {
        const ssize_t n = recv(fd, &rep, sizeof rep, MSG_DONTWAIT | MSG_TRUNC);
        if (n <= 0) return;
        MUST(n == sizeof rep && rep.version == KEEPER_VERSION && rep.status < ERR_CODES);
        MUST(memchr(rep.text, 0, sizeof rep.text) && memchr(rep.name, 0, sizeof rep.name));
        MUST(rep.status == OK || rep.text[0]);
    }
}

/* Packets of a length byte and that many bytes over a request that is in order. Regions stay small:
 * how much memory there is is not the question here. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    const int fd = connected();
    for (int i = 0; n > 1 && i < 16; i++) {
        struct keeper_request req = {.version = KEEPER_VERSION, .op = KEEPER_REGION, .n_bytes = 64};
        const size_t n_packet = data[0], n_has = n_packet < n - 1 ? n_packet : n - 1;
        char packet[256] = {0};
        strcpy(req.device, "cpu");
        memcpy(packet, &req, sizeof req);
        memcpy(packet, data + 1, n_has);
        memcpy(&req, packet, sizeof req);
        req.n_bytes &= 0xFFFF;
        req.wait_ms = 0;
        memcpy(packet, &req, sizeof req);
        (void)!send(fd, packet, n_packet < 64 ? sizeof req : n_packet, MSG_NOSIGNAL);
        MUST(keeperd_step(keeper, 0) == OK && keeperd_step(keeper, 0) == OK);
        hear(fd);
        data += 1 + n_has;
        n -= 1 + n_has;
    }
    close(fd);
    MUST(keeperd_step(keeper, 0) == OK);
    return 0;
}
