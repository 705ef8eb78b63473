"""What the system counts for this process, for benchmarks that compare memory. Not to be run; Linux alone."""


def process_bytes(field):
    """Bytes of a line of `/proc/self/status`: VmRSS now, VmHWM at the peak."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(field))


def forget_peak():
    """Makes the peak that VmHWM tells begin anew."""
    with open("/proc/self/clear_refs", "w") as peak:
        peak.write("5")
