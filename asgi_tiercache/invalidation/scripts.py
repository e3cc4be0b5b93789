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

local function later(a, b)
  local a_ms, a_seq = string.match(a, '(%d+)-(%d+)')
  local b_ms, b_seq = string.match(b, '(%d+)-(%d+)')
  a_ms, a_seq, b_ms, b_seq = tonumber(a_ms), tonumber(a_seq), tonumber(b_ms), tonumber(b_seq)
  return a_ms > b_ms or (a_ms == b_ms and a_seq > b_seq)
end

local function latest(a, b)
  if a and (not b or later(a, b)) then return a end
  return b
end

local function run_id()
  return string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
end

-- Rule I4: whoever finds no control state makes one, with a new epoch, so that what came before counts no more.
local function begin(clock)
  local last = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)
  clock = latest(last[1] and last[1][1], clock) or '0-0'
  redis.call('DEL', control)
  redis.call('HSET', control, 'epoch', fresh, 'clock', clock, 'floor', '0-0', 'soft', '0-0', 'run_id', run_id())
  return fresh, clock
end

-- The id follows the server's clock, but never falls behind the last one, even if clock or stream were set back.
local function record(epoch, clock, kind, fields)
  local ms, seq = string.match(clock, '(%d+)-(%d+)')
  local id = '*'
  if now <= tonumber(ms) and tonumber(seq) < 1048575 then
    id = ms .. '-' .. string.format('%d', seq + 1)
  elseif now <= tonumber(ms) then  -- positions have room for 20 bits of it
    id = string.format('%.0f-0', ms + 1)
  end
  return redis.call('XADD', log, 'MAXLEN', '~', ARGV[2], id,
                    'previous', clock, 'epoch', epoch, 'kind', kind, unpack(fields))
end

local epoch, clock = unpack(redis.call('HMGET', control, 'epoch', 'clock'))
"""

CONFIRM = Script(
    _PROLOGUE
    + """
-- ARGV: epoch to begin with, length of the log, whether a restart is trusted.
if epoch then
  local was, is = redis.call('HGET', control, 'run_id'), run_id()
  if was ~= is then
    -- Rule I8: another server, or this one restarted: what it was told last may be lost.
    if ARGV[3] == '1' then redis.call('HSET', control, 'run_id', is) else epoch = false end
  end
end
if not epoch then epoch, clock = begin(clock) end
local due = redis.call('HGET', control, 'due')
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
return {epoch, clock, redis.call('HGET', control, 'floor'), redis.call('HGET', control, 'soft')}
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
if not epoch then epoch, clock = begin(clock) end
local floor, due, known = unpack(redis.call('HMGET', control, 'floor', 'due', 'patterns'))

local patterns, count = cjson.decode(known or '{}'), 0
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
local mark, marked, counted, sweep = unpack(redis.call('HMGET', control, 'mark', 'marked', 'counted', 'sweep'))
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
