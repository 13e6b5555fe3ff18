#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Reads what emulator/profile recorded, for bench/profile: the median of the trips
that no interrupt came into, as tables whose sums are the ticks of that trip."""

import argparse
import bisect
import collections
import os
import re
import struct
import subprocess
import sys

HEAD = struct.Struct('<QQQQ')
RECORD = struct.Struct('<QQIIIHBB')
MAGIC = 0x31656c69666f7270
(OTHER, CALL, RET, VMREAD, VMWRITE, RDMSR, WRMSR, INVALIDATE, VMPTRLD, VMCLEAR, VMENTER,
 EVENT, STORE) = range(13)
GUEST, REDUNDANT, LOCKED = 1, 2, 4
EVENT_EXIT, EVENT_INTERRUPT, EVENT_EXCEPTION = 1, 2, 3
EXIT_EXTERNAL_INTERRUPT = 1


class Record(collections.namedtuple('Record', 'rip value field vmcs icount opcode flags kind')):
    __slots__ = ()


class Symbols:
    """Names of addresses; what the compiler split off a function counts as that function."""

    def __init__(self, elf, text=True):
        self.addresses, self.names, self.cache = [], [], {}
        kinds = 'tTwW' if text else 'bBdDvV'
        lines = subprocess.run(['nm', '-n', elf], stdout=subprocess.PIPE, check=True,
                               universal_newlines=True).stdout.splitlines()
        for line in lines:
            words = line.split()
            if len(words) != 3 or words[1] not in kinds or words[2].startswith(('__pfx_', '.L')):
                continue
            address = int(words[0], 16)
            if not self.addresses or self.addresses[-1] != address:
                self.addresses.append(address)
                self.names.append(words[2])

    def __call__(self, address):
        name = self.cache.get(address)
        if name is None:
            i = bisect.bisect_right(self.addresses, address) - 1
            name = self.names[i] if i >= 0 else hex(address)
            name = self.cache[address] = re.sub(r'\.(isra|constprop|part|cold)(\.\d+)?', '', name)
        return name


def trips(path):
    """Yields ticks, position and number of records of each trip."""
    size = os.path.getsize(path)
    with open(path, 'rb') as f:
        while True:
            head = f.read(HEAD.size)
            if not head:
                return
            if len(head) < HEAD.size:
                sys.exit(f'profile: {path} ends in the middle of a trip')
            magic, _, nr, ticks = HEAD.unpack(head)
            position = f.tell()
            if magic != MAGIC or position + nr * RECORD.size > size:
                sys.exit(f'profile: {path} is no recording, or ends in the middle of a trip')
            yield ticks, position, nr
            f.seek(nr * RECORD.size, 1)


def records(path, trip):
    with open(path, 'rb') as f:
        f.seek(trip[1])
        data = f.read(trip[2] * RECORD.size)
    return [Record(*r) for r in RECORD.iter_unpack(data)]


def interrupted(recorded):
    return any(r.kind == EVENT and (r.opcode == EVENT_INTERRUPT or
               (r.opcode == EVENT_EXIT and r.field & 0xffff == EXIT_EXTERNAL_INTERRUPT))
               for r in recorded)


def header(tree, name, pattern, base):
    with open(os.path.join(tree, name)) as f:
        return {int(m[2], base): m[1] for m in re.finditer(pattern, f.read())}


class Row(collections.namedtuple('Row', 'ticks function stack record')):
    """An instruction: its ticks, and the functions on the host's stack, innermost last."""
    __slots__ = ()


def rows(recorded, ticks, host, guest):
    end = (recorded[0].icount + ticks) & 0xffffffff
    steps = [r for r in recorded if r.kind != STORE]
    stack, called, returned = [], False, False
    for r, following in zip(steps, [r.icount for r in steps[1:]] + [end]):
        passed = (following - r.icount) & 0xffffffff
        if r.kind == EVENT:
            yield Row(passed, '(VM-Exit)' if r.opcode == EVENT_EXIT else '(event)', (), r)
            continue
        if r.flags & GUEST:
            yield Row(passed, guest(r.rip), (), r)
            continue
        function = host(r.rip)
        if returned and stack:
            stack.pop()
        if called or not stack:
            stack.append([function])
        elif stack[-1][-1] != function:
            # A tail call, or back from one
            if function in stack[-1]:
                del stack[-1][stack[-1].index(function) + 1:]
            else:
                stack[-1].append(function)
        called, returned = r.kind == CALL, r.kind == RET
        yield Row(passed, function, tuple(f for frame in stack for f in frame), r)


def read_causes(path):
    causes = {}
    with open(path) as f:
        for line in f:
            line = line.split('#')[0].strip()
            if line:
                cause, functions = line.split(':')
                causes.update((function, cause.strip()) for function in functions.split())
    return causes


def cause_of(row, causes):
    if row.record.flags & GUEST or not row.stack:
        return 'L1 and L2'
    for function in reversed(row.stack):
        if function in causes:
            return causes[function]
    return 'other'


class Sums:
    """Prints tables, each of which must sum up to the ticks of the trip."""

    def __init__(self, ticks):
        self.ticks = ticks

    def table(self, title, counts, extra=None, limit=None):
        total = sum(counts.values())
        if total != self.ticks:
            sys.exit(f'profile: {title}: {total} ticks in the table, {self.ticks} in the trip')
        print(f'{title}')
        for name, n in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:limit]:
            print(f'{n:8d} {100 * n / self.ticks:5.1f} %  {extra[name] if extra else ""}{name}')
        print(f'{total:8d}          sum, as many as the trip has\n')


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('recording')
    parser.add_argument('--vmlinux', required=True)
    parser.add_argument('--selftest', required=True, help='with symbols')
    parser.add_argument('--tree', required=True, help="the kernel's source")
    parser.add_argument('--causes', required=True)
    parser.add_argument('--first', type=int, metavar='N', help='look at the first N trips only')
    parser.add_argument('--skip', type=int, default=0, metavar='N', help='look at none of the first N')
    parser.add_argument('what', nargs='*', default=['causes', 'functions'],
                        help='causes functions inclusive vmx writes stores shared tree:FUNCTION insn:FUNCTION')
    args = parser.parse_args()

    found = list(trips(args.recording))[args.skip:args.first]
    found.sort()
    while found:
        # The median of those that are left
        trip = found[len(found) // 2]
        recorded = records(args.recording, trip)
        if not interrupted(recorded):
            break
        found.remove(trip)
    else:
        sys.exit('profile: no trip without an interrupt was recorded')

    ticks = trip[0]
    sums = Sums(ticks)
    host = Symbols(args.vmlinux)
    all_rows = list(rows(recorded, ticks, host, Symbols(args.selftest)))
    causes = read_causes(args.causes)
    fields = header(args.tree, 'arch/x86/include/asm/vmx.h', r'(\w+)\s*=\s*(0x[0-9a-f]{8}),', 16)
    exits = header(args.tree, 'arch/x86/include/uapi/asm/vmx.h',
                   r'#define EXIT_REASON_(\w+)\s+(\d+)', 10)

    names = [exits.get(r.field & 0xffff, str(r.field)) for r in recorded
             if r.kind == EVENT and r.opcode == EVENT_EXIT]
    print(f'{ticks} ticks, the median of {len(found)} trips; VM-Exits: {", ".join(names)}\n')

    for what in args.what or ['causes', 'functions']:
        what, _, argument = what.partition(':')
        counts = collections.Counter()
        accesses = collections.Counter()
        if what == 'causes':
            for row in all_rows:
                cause = cause_of(row, causes)
                counts[cause] += row.ticks
                if not row.record.flags & GUEST:
                    accesses[cause, row.record.kind] += 1
            sums.table('By cause: ticks, VMREADs, VMWRITEs', counts,
                       {c: f'{accesses[c, VMREAD]:3d} {accesses[c, VMWRITE]:3d}  ' for c in counts})
        elif what == 'functions':
            for row in all_rows:
                counts[('L1, L2: ' if row.record.flags & GUEST else '') + row.function] += row.ticks
            sums.table('By function, without what it calls', counts)
        elif what == 'inclusive':
            for row in all_rows:
                for function in set(row.stack):
                    counts[function] += row.ticks
            print('By function, with what it calls')
            for name, n in counts.most_common():
                print(f'{n:8d} {100 * n / ticks:5.1f} %  {name}')
            print()
        elif what == 'writes':
            for row in all_rows:
                if row.record.kind == VMWRITE and not row.record.flags & GUEST:
                    counts[row.function] += 1
                    if row.record.flags & REDUNDANT:
                        accesses[row.function] += 1
            print('VMWRITEs, and how many of them write the value that is there')
            for name, n in counts.most_common():
                print(f'{n:8d} {accesses[name]:5d}  {name}')
            print(f'{sum(counts.values()):8d} {sum(accesses.values()):5d}  sum\n')
        elif what == 'vmx':
            verbs = {VMREAD: 'VMREAD', VMWRITE: 'VMWRITE', RDMSR: 'RDMSR', WRMSR: 'WRMSR',
                     INVALIDATE: 'INVEPT/VPID', VMPTRLD: 'VMPTRLD', VMCLEAR: 'VMCLEAR',
                     VMENTER: 'VM-Enter'}
            print('VMX instructions and MSRs, in order')
            for row in all_rows:
                r = row.record
                if r.kind not in verbs or r.flags & GUEST:
                    continue
                name = ''
                if r.kind in (VMREAD, VMWRITE):
                    name = fields.get(r.field, hex(r.field))
                elif r.kind in (RDMSR, WRMSR, INVALIDATE):
                    name = hex(r.field)
                value = f'{r.value:#x}' if r.kind == VMWRITE else ''
                print(f'{verbs[r.kind]:12}{name:34}{value:20}'
                      f'{"as it is " if r.flags & REDUNDANT else "":9}{row.function}')
            print()
        elif what in ('stores', 'shared'):
            looked_at = [recorded]
            if what == 'shared':
                looked_at = [r for r in (records(args.recording, t) for t in found)
                             if not interrupted(r)]
            data = Symbols(args.vmlinux, text=False)
            functions = collections.defaultdict(set)
            written = collections.Counter()
            for trip_records in looked_at:
                stored = [r for r in trip_records if r.kind == STORE]
                written.update({r.value & ~63 for r in stored})
                for r in stored:
                    counts[r.value & ~63, bool(r.flags & LOCKED)] += 1
                    functions[r.value & ~63].add(host(r.rip))
            print('Stores of the host, but for those to its stack: cache line, times, locked, functions'
                  if what == 'stores' else
                  f'Cache lines that each of {len(looked_at)} trips writes: line, times, locked, functions')
            for line in sorted(n for n in written if written[n] == len(looked_at)):
                name = data(line) if line >= data.addresses[0] > 1 << 63 else ''
                locked = counts[line, True]
                print(f'{line:#x} {(counts[line, False] + locked) / len(looked_at):6g} '
                      f'{f"{locked / len(looked_at):g} lock" if locked else "":8} '
                      f'{" ".join(sorted(functions[line]))}{"  # " + name if name else ""}')
            print()
        elif what == 'tree':
            order = {}
            for row in all_rows:
                if argument in row.stack:
                    below = row.stack[row.stack.index(argument):]
                    for i in range(1, len(below) + 1):
                        order[below[:i]] = order.get(below[:i], 0) + row.ticks
            for below, n in order.items():
                print(f'{n:8d}  {"  " * (len(below) - 1)}{below[-1]}')
            print()
        elif what == 'insn':
            for row in all_rows:
                if row.function == argument:
                    counts[row.record.rip] += row.ticks
            listing = subprocess.run(['objdump', '-d', '--no-show-raw-insn', args.vmlinux,
                                      '--disassemble=' + argument], stdout=subprocess.PIPE,
                                     check=True, universal_newlines=True).stdout
            for line in listing.splitlines():
                m = re.match(r'\s*([0-9a-f]{8,}):', line)
                if m:
                    print(f'{counts[int(m[1], 16)]:8d}  {line}')
            print()
        else:
            sys.exit(f'profile: there is no table {what}; see bench/profile --help')


main()
