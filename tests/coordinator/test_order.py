"""Two instances report one answer: whatever overtakes what, the client sees one sequence."""

from __future__ import annotations

import asyncio

from elasticmm.v1 import inference_pb2 as pb
from tests.coordinator.conftest import Bench, MakeBench, ask_for
from tests.coordinator.fake_stage import fake_token


async def test_the_decoder_overtakes_the_first_token(bench: Bench) -> None:
    _, prefill, decode = bench.stages
    prefill.hold_first.clear()
    asking = asyncio.create_task(bench.ask(max_tokens=8, seed=3))
    await bench.until(lambda: "decode" in decode.kinds() and not decode.jobs)
    assert not asking.done()
    prefill.hold_first.set()
    answer = await asking
    assert answer.token_ids == [fake_token(3, index) for index in range(8)]
    await bench.assert_idle()


async def test_reports_after_the_last_token_are_waited_for(bench: Bench) -> None:
    """The story of the stages is whole although the prefill's report came last."""
    _, prefill, decode = bench.stages
    prefill.hold_first.clear()
    asking = asyncio.create_task(bench.ask(max_tokens=2))
    await bench.until(lambda: "decode" in decode.kinds() and not decode.jobs)
    prefill.hold_first.set()
    stages = {span.stage: span.instance_id for span in (await asking).finished.stages}
    assert stages == {pb.STAGE_PREFILL: prefill.name, pb.STAGE_DECODE: decode.name}


async def test_an_answer_of_one_token_frees_the_decoder(bench: Bench) -> None:
    *_, decode = bench.stages
    answer = await bench.ask(max_tokens=1)
    assert len(answer.token_ids) == 1
    await bench.until(lambda: "cancel" in decode.kinds())
    await bench.assert_idle()


async def test_many_at_once(make_bench: MakeBench) -> None:
    bench = await make_bench("e", "p", "p", "d", "d")
    answers = await asyncio.gather(*(bench.ask(max_tokens=12, seed=seed) for seed in range(20)))
    for seed, answer in enumerate(answers):
        assert answer.token_ids == [fake_token(seed, index) for index in range(12)]
    used = {span.instance_id for answer in answers for span in answer.finished.stages}
    assert used == {stage.name for stage in bench.stages[1:]}
    await bench.assert_idle()


async def test_first_come_first_served(make_bench: MakeBench) -> None:
    bench = await make_bench()
    (stage,) = await bench.add("epd", blocks=8)
    stage.pause_at = 1
    first = bench.inference.Generate(ask_for(max_tokens=100))
    await bench.until(lambda: bench.num_requests == 1)
    later = []
    for number in range(3):
        later.append(asyncio.create_task(bench.ask(max_tokens=100, seed=number)))
        await bench.until(lambda: bench.num_requests == len(later) + 1)
    stage.pause_at = None
    first.cancel()
    await asyncio.gather(*later)
    seeds = [each.prefill.sequence.sampling.seed for each in stage.commands if each.HasField("prefill")]
    assert seeds[1:] == [0, 1, 2]
    await bench.assert_idle()


async def test_stop_strings_end_the_work(make_bench: MakeBench) -> None:
    bench = await make_bench()
    tokenizer = bench.coordinator.door.tokenizer
    letters = [tokenizer.encode_plain(letter)[0] for letter in "abcdefghij"]
    prefill, decode = await bench.add("ep", "d", make_token=lambda _seed, index: letters[index % 10])
    answer = await bench.ask(stop=pb.StopConditions(strings=["efg"]), max_tokens=4000)
    assert answer.text == "abcd"
    assert answer.token_ids == letters[:7]
    assert answer.finished.reason == pb.FINISH_REASON_STOP
    assert answer.finished.stop_string == "efg"
    await bench.until(lambda: "cancel" in decode.kinds())
    assert "cancel" not in prefill.kinds()
    await bench.assert_idle()


async def test_stop_tokens_and_eos_reach_the_engine(bench: Bench) -> None:
    eos = bench.coordinator.model.family.eos_token_ids
    *_, decode = bench.stages
    wanted = fake_token(1, 3)
    answer = await bench.ask(stop=pb.StopConditions(token_ids=[wanted]), seed=1, max_tokens=50)
    assert answer.token_ids == [fake_token(1, index) for index in range(4)]
    assert answer.finished.reason == pb.FINISH_REASON_STOP
    assert not answer.finished.stop_string
    tokenizer = bench.coordinator.door.tokenizer
    assert answer.text == tokenizer.decode(answer.token_ids[:3])
    await bench.ask(stop=pb.StopConditions(ignore_eos=True), max_tokens=2)
    stop_ids = [
        set(each.decode.sequence.stop_token_ids) for each in decode.commands if each.HasField("decode")
    ]
    assert stop_ids == [eos | {wanted}, set()]


async def test_logprobs_and_the_servers_seed(bench: Bench) -> None:
    answer = await bench.ask(max_tokens=5, logprobs=0)
    assert sum(len(event.logprobs) for event in answer.tokens) == 5
    assert answer.accepted.seed
    assert answer.token_ids == [fake_token(answer.accepted.seed, index) for index in range(5)]
