"""The Lua scripts of the log in Redis. `KEYS` are the control hash and the stream, in one slot.

Fields of the control hash: `epoch`; `clock`, the id of the last invalidation; `floor` and `soft`, below which
everything is invalid or stale; `run_id` of the server that it was made on; `patterns`, as JSON {glob: [hard id, soft
id]}; `due`, how far an invalidation was dated ahead; `mark`, `marked`, `counted`, `sweep` for trimming; for
each tag `t:<tag>` and `s:<tag>` with the ids of its last hard and its last soft invalidation.
"""

from __future__ import annotations

from asgi_tiercache.tiers.clients import Script

MAX_FIELDS = 1_000_000
"""Tags in the control hash at which the older half of them is given up: entries from before are then invalid."""

_PROLOGUE = """
local control, log, fresh = KEYS[1], KEYS[2], ARGV[1]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local DAY = 86400000

-- The two numbers of an id; nothing where a position has no room for it: 43 bits, and 20.
local function parts(id)
  if type(id) ~= 'string' then return nil end
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  ms, seq = tonumber(ms), tonumber(seq)
  if ms and ms < 8796093022208 and seq < 1048576 then return ms, seq end
end

-- Whether `a` is an id, and later than `b` if that is one, too.
local function later(a, b)
  local a_ms, a_seq = parts(a)
  local b_ms, b_seq = parts(b)
  if not a_ms or not b_ms then return a_ms ~= nil end
  return a_ms > b_ms or (a_ms == b_ms and a_seq > b_seq)
end

local function latest(a, b)
  if later(a, b) then return a end
  return b
end

local function run_id()
  return string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
end

-- An id that the server's clock has not reached by far is none of ours, or of a clock that was wrong. One may be dated
-- ahead besides, by a day at the most.
local function possible(id, ahead)
  local ms = parts(id)
  return ms and ms < now + DAY + (ahead or 0)
end

local function refused(reply, reason)
  return type(reply) == 'table' and reply.err and string.find(reply.err, reason, 1, true)
end

-- What a command finds; nothing where the key holds something else than it should: that goes.
local function read(command, key, ...)
  local found = redis.pcall(command, key, ...)
  if refused(found, 'WRONGTYPE') then
    redis.call('DEL', key)
    return {}
  end
  return found.err and redis.call(command, key, ...) or found
end

-- The patterns; nothing if they are malformed.
local function decoded(text)
  local ok, found = pcall(cjson.decode, text)
  if not ok or type(found) ~= 'table' then return nil end
  for glob, ids in pairs(found) do
    if type(glob) ~= 'string' or type(ids) ~= 'table' or not (parts(ids[1]) and parts(ids[2])) then return nil end
  end
  return found
end

-- The fields that are no tags.
local head = {}
local names = {'epoch', 'clock', 'floor', 'soft', 'run_id', 'patterns', 'due', 'mark', 'marked', 'counted', 'sweep'}
for i, value in ipairs(read('HMGET', control, unpack(names))) do head[names[i]] = value or nil end

-- The last id of the stream.
local function top()
  local last = read('XREVRANGE', log, '+', '-', 'COUNT', 1)[1]
  return last and last[1]
end

-- Rule I4: whoever finds no control state makes one, with a new epoch, so that what came before counts no more.
local function begin(clock)
  local last = top()
  if last and not possible(last) then redis.call('DEL', log) end
  clock = latest(possible(last) and last, possible(clock) and clock or '0-0')
  redis.call('DEL', control)
  redis.call('HSET', control, 'epoch', fresh, 'clock', clock, 'floor', '0-0', 'soft', '0-0', 'run_id', run_id())
  head = {epoch = fresh, clock = clock, floor = '0-0', soft = '0-0'}
end

local function after(id)
  local ms, seq = parts(id)
  if seq < 1048575 then return string.format('%.0f-%d', ms, seq + 1) end
  return string.format('%.0f-0', ms + 1)
end

-- The id follows the server's clock, but never falls behind the last one, even if clock or stream were set back.
local function record(epoch, clock, kind, fields)
  local function add(call, id)
    return call('XADD', log, 'MAXLEN', '~', ARGV[2], id, 'previous', clock, 'epoch', epoch, 'kind', kind,
                unpack(fields))
  end
  local id = latest(string.format('%.0f-0', now), after(clock))
  local added = add(redis.pcall, id)
  if refused(added, 'equal or smaller') and possible(top()) then
    added = add(redis.pcall, after(top()))  -- somebody else writes into the stream, too
  end
  if type(added) == 'string' then return added end
  -- Or has set it ahead, or made something else of it: it goes, and whoever has not read it is told of a gap.
  for _, reason in ipairs({'equal or smaller', 'exhausted', 'WRONGTYPE'}) do
    if refused(added, reason) then redis.call('DEL', log) end
  end
  return add(redis.call, id)
end

-- Control state that no script of ours can have written is none.
local function sound()
  return head.epoch and #head.epoch <= 64 and string.find(head.epoch, '^%w+$') and possible(head.clock)
    and possible(head.floor, DAY) and possible(head.soft, DAY)
    and (not head.patterns or decoded(head.patterns)) and (not head.due or possible(head.due, DAY))
    and (not head.mark or (parts(head.mark) and tonumber(head.marked) and tonumber(head.counted)))
    and (not head.sweep or string.find(head.sweep, '^%d+$'))
end
local lost = not sound()
"""

CONFIRM = Script(
    _PROLOGUE
    + """
-- ARGV: epoch to begin with, length of the log, whether a restart is trusted.
-- A replica may be cut off: that it knows of nothing new says nothing.
if string.find(redis.call('INFO', 'replication'), 'role:slave', 1, true) then
  return redis.error_reply('READONLY a replica cannot tell what was invalidated')
end
local is = run_id()
if not lost and head.run_id ~= is then
  -- Rule I8: another server, or this one restarted: what it was told last may be lost.
  if ARGV[3] == '1' then redis.call('HSET', control, 'run_id', is) else lost = true end
end
if lost then begin(head.clock) end
local epoch, clock, due = head.epoch, head.clock, head.due
if due then
  -- Where nothing is invalidated, the clock has to pass what was dated ahead by itself: the furthest as soon as it can,
  -- others within a second.
  local passed = later(string.format('%.0f-0', now), due)
  if later(due, clock) and (passed or now - string.match(clock, '%d+') >= 1000) then
    clock = record(epoch, clock, 'tick', {})
    redis.call('HSET', control, 'clock', clock)
  end
  if passed then redis.call('HDEL', control, 'due') end
end
return {epoch, clock, head.floor, head.soft}
"""
)

APPEND = Script(
    _PROLOGUE
    + """
-- ARGV: epoch to begin with, length of the log, kind ('hard' or 'soft'), who, settle in ms, whether everything,
-- longest lifetime in ms, most fields, most patterns, number of tags, the tags, the patterns.
local kind, who, settle, everything = ARGV[3], ARGV[4], tonumber(ARGV[5]), ARGV[6] == '1'
local lifetime, most_fields, most_patterns = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local tags, globs = {}, {}
for i = 11, 10 + ARGV[10] do tags[#tags + 1] = ARGV[i] end
for i = 11 + ARGV[10], #ARGV do globs[#globs + 1] = ARGV[i] end
if lost then begin(head.clock) end
local epoch, clock, floor, due, known = head.epoch, head.clock, head.floor, head.due, head.patterns

local patterns, count = decoded(known or '{}'), 0
for glob, ids in pairs(patterns) do
  if later(ids[1], floor) or later(ids[2], floor) then count = count + 1 else patterns[glob] = nil end
end
for _, glob in ipairs(globs) do
  if not patterns[glob] then
    patterns[glob] = {'0-0', '0-0'}
    count = count + 1
  end
end
local furthest  -- that a pattern was dated ahead which can be told apart no more
if count > most_patterns then
  for _, ids in pairs(patterns) do furthest = latest(furthest, latest(ids[1], ids[2])) end
  kind, everything, tags, globs, patterns = 'hard', true, {}, {}, {}
end

local fields = {'by', who}
local function add(name, value)
  fields[#fields + 1] = name
  fields[#fields + 1] = value
end
if settle > 0 then add('settle', ARGV[5]) end
if everything then add('all', '1') end
if #tags > 0 then add('tags', cjson.encode(tags)) end
if #globs > 0 then add('patterns', cjson.encode(globs)) end
local id = record(epoch, clock, kind, fields)
redis.call('HSET', control, 'clock', id)

-- From which stamp on entries are newer than this.
local counts = id
if settle > 0 then
  local ms, seq = string.match(id, '(%d+)-(%d+)')
  counts = string.format('%.0f', ms + settle) .. '-' .. seq
  redis.call('HSET', control, 'due', latest(due, counts))
end
local overtaken = due and later(due, counts)
local function set(name)
  redis.call('HSET', control, name, overtaken and latest(redis.call('HGET', control, name), counts) or counts)
end
local soft = kind == 'soft'
for _, tag in ipairs(tags) do set((soft and 's:' or 't:') .. tag) end
if everything then set(soft and 'soft' or 'floor') end
if furthest then redis.call('HSET', control, 'floor', latest(redis.call('HGET', control, 'floor'), furthest)) end
for _, glob in ipairs(globs) do
  local ids, which = patterns[glob], soft and 2 or 1
  ids[which] = latest(ids[which], counts)
end
if known or #globs > 0 then redis.call('HSET', control, 'patterns', cjson.encode(patterns)) end

-- Rule I4: fields older than the longest lifetime are trimmed, after the floor was raised past them. `mark` is the
-- clock as it stood at the time `marked`, with `counted` fields. It becomes the floor once every entry stamped below it
-- has expired, or when there are too many fields; it stands at about half of these.
local size = redis.call('HLEN', control)
local mark, marked, counted, sweep = head.mark, head.marked, head.counted, head.sweep
local due_for_trimming = mark and not sweep and (size > most_fields or now - marked > lifetime)
if due_for_trimming then
  sweep = '0'
  redis.call('HSET', control, 'floor', latest(redis.call('HGET', control, 'floor'), mark))
end
if not mark or due_for_trimming or (not sweep and size - counted > most_fields / 2) then
  redis.call('HSET', control, 'mark', clock, 'marked', string.format('%.0f', now), 'counted', size)
end
if sweep then
  floor = redis.call('HGET', control, 'floor')
  local found = redis.call('HSCAN', control, sweep, 'MATCH', '[st]:*', 'COUNT', 200)
  for i = 1, #found[2], 2 do
    if not later(found[2][i + 1], floor) then redis.call('HDEL', control, found[2][i]) end
  end
  if found[1] == '0' then redis.call('HDEL', control, 'sweep') else redis.call('HSET', control, 'sweep', found[1]) end
end
return {epoch, id, clock, everything and 1 or 0}
"""
)
