from coordinator.tenants.labels import OTHER, TenantLabels


def test_unnamed_tenants_are_bounded_and_named_ones_are_not() -> None:
    labels = TenantLabels(lambda: {"named"}, most_unnamed=2)
    assert [labels.of(tenant) for tenant in ("a", "b", "c", "a", "named")] == ["a", "b", OTHER, "a", "named"]
