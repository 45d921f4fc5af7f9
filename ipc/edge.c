/* edge.c - see edge.h. */
#include "ipc/edge.h"

#include "common/log.h"

static err_t check_peers(const struct conf *c, struct dev *d)
{
    if (!c->gpu.edge) return FAIL(ERR_REFUSED, "gpu.edge = false");
    const err_t e = dev_check_peer(d, c->place.dit); /* one of the two is d itself */
    return e == OK ? dev_check_peer(d, c->place.vae) : e;
}

uint64_t edge_bytes(const struct conf *c, struct dev *d)
{
    if (check_peers(c, d) != OK) return 0;
    return (uint64_t)edge_slots(c) * (uint64_t)latents_values(c) * sizeof(float);
}

err_t edge_open(struct edge *out, struct keeper *k, struct dev *d, const struct conf *c)
{
    struct region r = {0};
    err_t e = check_peers(c, d);
    if (e == OK)
        e = keeper_region(k, d, "edge.0", c->place.vae, edge_bytes(c, d), EDGE_LAYOUT, NULL, &r);
    /* NONE: the peer, who has made it, could not map it either, and it went meanwhile. */
    if (e == ERR_REFUSED || e == ERR_NONE) {
        log_info("edge", "kind=host why=\"%s\"", err_text());
        return OK;
    }
    if (e != OK) return e;
    *out = (struct edge){r, {r.data, edge_slots(c), latents_values(c)}};
    log_info("edge", "kind=cuda_ipc generation=%llu", (unsigned long long)r.generation);
    return OK;
}

void edge_close(struct edge *e)
{
    if (!e) return;
    region_unmap(&e->region);
    *e = (struct edge){0};
}

/* Killed in between, dit leaves no edge: vae then reads the host's copy, which is always there. */
void edge_begin(struct ledger *l, uint64_t generation)
{
    if (ledger_read(&l->dit.edge_generation) == generation) return;
    ledger_publish(&l->dit.edge_generation, 0);
    ledger_publish(&l->dit.edge_from, ledger_read(&l->dit.n_latents_blocks));
    ledger_publish(&l->dit.edge_generation, generation);
}

bool edge_holds(const struct ledger *l, const struct conf *c, uint64_t generation, int64_t latent)
{
    return generation != 0 && ledger_read(&l->dit.edge_generation) == generation &&
           latent >= (int64_t)ledger_read(&l->dit.edge_from) * c->dit.block;
}
