/* record.c - dev_record in programs whose ops for cuda:N are the CPU's: those cannot be recorded,
 * so the graph that is recorded calls the work again at each replay. Linked by --wrap=dev_record.
 */
#include "common/dev.h"
#include "tests/fake_cuda/fake.h"

err_t __real_dev_record(struct dev *d, struct dev_graph **out, err_t (*work)(void *), void *self);
err_t __wrap_dev_record(struct dev *d, struct dev_graph **out, err_t (*work)(void *), void *self);

static err_t nothing(void *self)
{
    (void)self;
    return OK;
}

err_t __wrap_dev_record(struct dev *d, struct dev_graph **out, err_t (*work)(void *), void *self)
{
    if (!dev_has_graphs(d)) return __real_dev_record(d, out, work, self);
    fake_cuda_graph_is(work, self);
    return __real_dev_record(d, out, nothing, self);
}
