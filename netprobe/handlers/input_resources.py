"""input_resources: what an input's thread and the process use (metrics spec 13)."""

from netprobe.metrics.table import HandlerTable, counter, quantile, rate

INPUT_RESOURCES = HandlerTable(
    type="input_resources",
    version="1.0",
    key="input_resources",
    native="netprobe._core.acc_resources:Resources",
    summary="What a running input costs. The agent adds one to each input; nobody asks for it.",
    options=("recorded_stream",),
    # names without the key in front: upstream's, which dashboards know
    metrics=(
        counter("total", "Measurements and changes of policies", prom="base_total"),
        counter("deep_samples", "Of these, the ones that were sampled", prom="base_deep_samples"),
        rate("event_rate", "Measurements and changes of policies per second", prom="base_event_rate"),
        quantile(
            "cpu_usage",
            "Percent of one processor that the input's thread used since the measurement before",
            is_float=True,
            prom="resources_cpu_usage",
        ),
        quantile("memory_bytes", "Resident memory of the process, bytes", prom="resources_memory_bytes"),
        counter("policy_count", "Policies on this input", prom="resources_policy_count"),
        counter("handler_count", "Handlers on this input", prom="resources_handler_count"),
    ),
)
