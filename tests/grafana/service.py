"""The settings that the golden dashboard is made of, and those of a service with hostile names."""

from decimal import Decimal

from mlobs.settings import ObjectiveSettings, Settings, SliSettings, SloSettings

OBJECTIVES = (
    ObjectiveSettings("up", SliSettings("availability"), Decimal("0.999"), model="fraud"),
    ObjectiveSettings("fast", SliSettings("latency", Decimal("0.1")), Decimal("0.99"), model="fraud"),
    ObjectiveSettings("p99", SliSettings("p99", Decimal("0.25")), Decimal("0.99"), model="fraud"),
    ObjectiveSettings("rows", SliSettings("data_quality"), Decimal("0.99"), model="fraud"),
    ObjectiveSettings("drift", SliSettings("drift"), Decimal("0.95"), model="fraud"),
)
FRAUD = Settings("fraud-api", slo=SloSettings(objectives=OBJECTIVES))
EVIL = 'a"} or vector(1) # {{ query "up" }}\n$model ${datasource} [[x]] <b>\\'
HOSTILE = Settings(
    EVIL,
    environment=EVIL,
    slo=SloSettings(
        objectives=(ObjectiveSettings(EVIL, SliSettings("p99", Decimal("0.1")), Decimal("0.99"), model=EVIL),)
    ),
)
