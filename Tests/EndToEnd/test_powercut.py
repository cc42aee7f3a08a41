# SPDX-License-Identifier: Apache-2.0
"""The power fails: what was accepted is there, whole, whatever the disk has made of the rest.

    APUS_POWERCUT_CUTS=1000 APUS_POWERCUT_SEED=7 python3 -m unittest -v test_powercut

Documentation/durability.md says what is modelled.
"""
import os
import random
import unittest

from powercut.ledger import Run

CUTS = int(os.environ.get("APUS_POWERCUT_CUTS", "60"))
SEED = int(os.environ.get("APUS_POWERCUT_SEED", "1"))
MESSAGES = 240


class TheQueue(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.run_ = Run(MESSAGES, SEED)
        cls.addClassCleanup(cls.run_.close)
        cls.run_.record()
        if cls.run_.queue.exit_status is not None:
            raise AssertionError("apus-queue ended by itself:\n" + cls.run_.queue.logged()[-4000:])

    def places(self, count, chance):
        """Anywhere, but often just behind an answer, around a sync, and while the files are made."""
        records = self.run_.records
        answers = sorted(set(self.run_.queued_at.values()) | set(self.run_.noted_at.values()))
        syncs = [i for i, r in enumerate(records) if r.kind in ("sync", "sync-end", "meta", "meta-end")]
        for number in range(count):
            yield [lambda: chance.randrange(len(records) + 1), lambda: chance.choice(answers) + 1,
                   lambda: chance.choice(syncs) + chance.choice([0, 1]), lambda: chance.randrange(syncs[8] + 20)][
                       (0, 1, 2, 1, 2, 0, 1, 2, 1, 3)[number % 10]]()

    def test_the_run_has_what_is_to_be_tested(self):
        run = self.run_
        queued = [m for m in run.messages if m.id]
        self.assertEqual(len(queued), sum(not m.is_aborted for m in run.messages))
        self.assertEqual(len({m.id for m in queued}), len(queued))
        self.assertTrue(any(len(m.content) > 600_000 for m in queued))
        self.assertTrue(any(m.is_aborted and len(m.content) > 100_000 for m in run.messages))
        self.assertGreater(len([r for r in run.reports if r.id]), 5)
        self.assertEqual(len([m for m in queued if m.id not in run.queued_at]), 0)
        self.assertGreater(len(run.noted_at), 100)

    def test_nothing_accepted_is_lost_by_a_power_cut(self):
        chance = random.Random(SEED)
        for number, cut in enumerate(self.places(CUTS, chance)):
            wrong = self.run_.cut(cut, SEED, journal=number % 2 == 0)
            self.assertEqual(wrong, [], f"seed {SEED}, cut {number} behind record {cut} of {len(self.run_.records)}")

    def test_a_queue_that_is_being_made_is_whole_or_made_anew(self):
        records = self.run_.records
        opened = next(i for i, r in enumerate(records) if r.kind == "out")
        for cut in range(2, min(opened, 22)):
            for seed in range(6):
                # Without a journal: the name of the file may be there before its octets are.
                wrong = self.run_.cut(cut, f"new {seed}", keep=0.7, journal=False)
                self.assertEqual(wrong, [], f"seed {seed}, behind record {cut}: {records[:cut]}")

    def test_an_answer_leaves_only_after_its_sync(self):
        self.assertEqual(self.run_.early_answers(), [])

    def test_an_answer_before_its_sync_is_found(self):
        """The canary: the same run as if each meta page had taken its time."""
        run = self.run_
        records = run.records
        try:
            run.records = [r for r in records if r.kind != "meta-end"]
            offsets = {id(r): i for i, r in enumerate(run.records)}
            at = dict(run.queued_at), dict(run.noted_at)
            for table in (run.queued_at, run.noted_at):
                for key, index in table.items():
                    table[key] = offsets[id(records[index])]
            self.assertGreater(len(run.early_answers()), 300)
        finally:
            run.records = records
            run.queued_at, run.noted_at = at

    def test_a_sync_that_is_not_done_is_found(self):
        """The canary: the disk says that it has synced and has not; then mail must be missed here."""
        run, records = self.run_, self.run_.records
        chance = random.Random(SEED)
        owed = [m for m in run.messages if m.id and self.is_owed(m)]
        for kind in ("meta", "sync"):
            for message in chance.sample(owed, 8):
                asked = next(i for i, r in enumerate(records) if r.end > message.asked)
                answer = run.queued_at[message.id]
                first = next(i for i in range(asked, answer) if records[i].kind == kind)
                # Every sync of data stores a meta page too that was written before it, so it makes up for that.
                unheard = [i for i in range(first, answer) if records[i].kind in (kind, "sync")]
                wrong = run.cut(answer + 1, SEED, keep=0, unheard=unheard)
                self.assertTrue([w for w in wrong if "LOST" in w or "BROKEN" in w or "does not work" in w], (kind, wrong))

    def is_owed(self, message):
        """Whether the queue has to have it when it has just said so: on a busy machine it may be delivered by then."""
        cut = self.run_.queued_at[message.id] + 1
        return not all("gone" in self.run_.states(address, cut, cut) for address in message.recipients)


if __name__ == "__main__":
    unittest.main()
