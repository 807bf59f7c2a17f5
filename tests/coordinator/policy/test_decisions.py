from coordinator.policy.decisions import Decision, DecisionRing
from coordinator.policy.seat import Arm
from coordinator.policy.trials.marked_ring import MarkedRing


def test_many_dispatches_push_out_no_rare_decision():
    ring = DecisionRing(size=3)
    ring.add(Decision(0.0, "search", "cluster", "takes a form", {"score": 0.5}))
    for number in range(9):
        ring.add(Decision(1.0 + number, "dispatch", f"r{number}", "goes"))
    assert [each.subject for each in ring.about()] == ["cluster", "r6", "r7", "r8"]
    assert len(ring) == 4


def test_decisions_are_in_order_and_can_be_asked_by_subject():
    ring = DecisionRing()
    for at, piece in enumerate(("a", "b", "a", "b")):
        ring.add(Decision(float(at), piece, "i0" if at % 2 else "i1", "does"))
    assert [each.at_s for each in ring.about()] == [0.0, 1.0, 2.0, 3.0]
    assert [each.at_s for each in ring.about("i0")] == [1.0, 3.0]


def test_a_decision_reads_as_a_sentence_with_its_numbers():
    decision = Decision(1.0, "search", "cluster", "takes a form", {"score": 0.51239})
    assert str(decision) == "search: cluster takes a form (score 0.5124)"


def test_a_decision_may_be_told_when_somebody_looks():
    asked = []

    def tell():
        asked.append("r0")
        return Decision(0.0, "dispatch", "r0", "goes")

    main = DecisionRing()
    main.add_later("dispatch", tell)
    MarkedRing(main, Arm.B).add_later("dispatch", tell)
    assert (len(main), main.counts["dispatch"], asked) == (2, 2, [])
    assert main.latest == Decision(0.0, "dispatch", "r0", "goes", arm=Arm.B)
    assert [each.arm for each in main.about("r0")] == [None, Arm.B]
    assert asked == ["r0"] * 3


def test_decisions_of_the_arm_that_is_tried_are_marked():
    ring = DecisionRing()
    MarkedRing(ring, Arm.B).add(Decision(1.0, "search", "cluster", "takes a form"))
    assert [str(each) for each in ring.about()] == ["b: search: cluster takes a form"]
