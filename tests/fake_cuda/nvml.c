/* nvml.c - as much of NVML as procs/supervisor/gpus.c calls: two GPUs whose figures follow from
 * their number and from how often they were looked at. Built as a shared object. */

int nvmlInit_v2(void);
int nvmlShutdown(void);
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle);
int nvmlDeviceGetClockInfo(void *handle, int type, unsigned *mhz);
int nvmlDeviceGetPowerUsage(void *handle, unsigned *mw);
int nvmlDeviceGetTemperature(void *handle, int sensor, unsigned *celsius);

static struct {
    unsigned n_looks;
} gpu[2];

static unsigned number_of(const void *handle)
{
    return handle == &gpu[1];
}

int nvmlInit_v2(void)
{
    return 0;
}

int nvmlShutdown(void)
{
    return 0;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle)
{
    if (index > 1) return 2;
    *handle = &gpu[index];
    return 0;
}

int nvmlDeviceGetClockInfo(void *handle, int type, unsigned *mhz)
{
    *mhz = (unsigned)type * 1000 + number_of(handle);
    return type == 1 || type == 2 ? 0 : 2;
}

int nvmlDeviceGetPowerUsage(void *handle, unsigned *mw)
{
    *mw = 500000 + 1000 * number_of(handle);
    return 0;
}

int nvmlDeviceGetTemperature(void *handle, int sensor, unsigned *celsius)
{
    *celsius = 40 + 2 * gpu[number_of(handle)].n_looks++;
    return sensor;
}
