-- Appends a batch. Arguments: prefix, messages a key keeps, seconds a head outlives them; then for each append
-- key, id, floor, deadline, expire, dedupe, body. Gives the server's clock, how many messages were trimmed and how many
-- expired ones were dropped, a strange name, then for each append: ret (-1 where one of its names is strange), mid,
-- previous, repeat.
--
-- One log is open at a time, and settled when the next one is opened: mostly a batch has a key once, or in a row.
-- Nothing fails halfway: Redis refuses a script's first write when it is out of memory or read-only, not a later one, and
-- a strange name is met before anything of its append is written.
local store, head_life = args[2], args[3]

-- The clock as a mid. micros * 10 / 16 would not be exact, so the part below 8 microseconds goes apart.
local micros = time[1] * 1000000 + time[2]
local below = micros % 8
local clock_mid = ((micros - below) / 8 * 5 + math.floor(below * 5 / 8)) * 16

-- How much longer than now needed messages and head may stay, so that their expiry is not set anew at every append.
local SLACK = 60

-- The log that is open: what its head says, and what became of it. A table for each log would cost as much as a call.
local log_key, log_last, log_trimmed, log_soonest, log_ends, log_largest
local log_stored, log_count, log_renewed, log_added, log_moved
local trimmed, expired = 0, 0

-- Whether it can be: no log is open where its head is strange.
local function open(key)
  local packed = try_call('GET', head_name(key))
  if packed and #packed < 32 then
    packed = get(head_name(key), 32)
  end
  log_key, log_stored, log_count, log_renewed, log_added, log_moved = key, 0, 0, false, 0, false
  if packed then
    log_last, log_trimmed, log_soonest, log_ends = struct.unpack('>dddd', packed)
    log_largest = largest_of(packed)
    -- As is_mid(), but without a call for each key.
    if not (log_last < 2^63 and log_last % 16 == 0 and log_trimmed % 16 == 0 and log_trimmed >= 0
            and log_trimmed <= log_last and log_ends < 2^40) then
      meet_strange(head_name(key))
      packed = nil
    end
  else
    log_last, log_trimmed, log_soonest, log_ends, log_largest = 0, 0, math.huge, 0, 0
  end
  if packed == nil then
    log_key = nil
    return false
  end
  return true
end

-- Numbers become text at a price, so those that come again and again do it once.
local texts = {}

local function text(number)
  local found = texts[number]
  if not found then
    found = string.format('%.0f', number)
    texts[number] = found
  end
  return found
end

-- Gives nothing where the messages are strange.
local function sequence(floor, expire, body)
  local previous = log_last
  local mid = math.max(previous + 16, floor + 16, clock_mid)
  local expires = now + expire
  if expire > 0 then
    local name, member = messages_name(log_key), struct.pack('>dd', mid, expires) .. body
    local count = try_call('RPUSH', name, member)
    if type(count) == 'table' then
      take_error(count, 'RPUSH', name, member)
      return
    end
    log_count = count
    log_soonest = math.min(log_soonest, expires)
    log_stored = log_stored + 1
    log_added = math.max(log_added, #body)
  end
  log_last, log_moved = mid, true
  if expires > log_ends then
    log_ends = math.ceil(expires) + SLACK
    log_renewed = true
  end
  return mid, previous
end

-- Also lengthens the memory of the id where the repeat asks for that. This write is what WAIT waits for: perhaps the
-- replicas never had the first one.
local function lengthen(id_name, dedupe)
  call('PEXPIRE', id_name, text(math.max(call('PTTL', id_name), dedupe * 1000, 1)))
end

-- The own ids of this batch. Many pushes share one, so that it is read and written once for all of them.
local own_ids = {}

local function open_own(id)
  local own = {name = own_name(id), known = '', ends = 0, deadline = 0, firsts = {}, added = {}}
  local packed = get(own.name, 8)
  if packed == nil then
    own.strange = true
  elseif packed then
    own.known = string.sub(packed, 1, -9)
    own.ends = struct.unpack('>d', packed, #packed - 7)
    own.size = #own.known
    if not (own.ends < 2^40) then
      own.strange, own.size = true, nil
      meet_strange(own.name)
    end
  end
  own_ids[id] = own
  return own
end

-- Mostly a key is new to the id, and to see that nothing must be unpacked. Nil where the id is strange, else false where
-- the key is new to it.
local function first_under(own, key)
  if own.known ~= '' and string.find(own.known, key .. '\0', 1, true) then
    local at = 1
    while at <= #own.known do
      local good, name, _, _, after = pcall(struct.unpack, '>sdd', own.known, at)
      if not good then
        own.strange = true
        meet_strange(own.name)
        break
      end
      own.firsts[name] = string.sub(own.known, at, after - 1)
      at = after
    end
    own.known = ''
  end
  if own.strange then
    return nil
  end
  return own.firsts[key] or false
end

-- The clock of a web node may be ahead by days, and its deadlines with it.
local MOST_OWN_SECONDS = 3600

local function remember(own, key, deadline, mid, previous)
  local first = struct.pack('>sdd', key, mid, previous)
  own.firsts[key] = first
  own.added[#own.added + 1] = first
  own.deadline = math.max(own.deadline, math.min(deadline, now + MOST_OWN_SECONDS))
end

-- It ends a second or two after the latest deadline, which an earlier batch may have brought. Where all were repeats,
-- EXPIREAT is what WAIT waits for; where nothing is known, all were refused.
local function settle_own(own)
  local ends = math.max(own.ends, math.ceil(own.deadline) + 1)
  local added = #own.added > 0 and table.concat(own.added) .. struct.pack('>d', ends)
  if own.size then
    if added then
      call('SETRANGE', own.name, own.size, added)
    end
    call('EXPIREAT', own.name, text(ends))
  elseif added then
    call('SET', own.name, added, 'EX', text(math.ceil(ends - now)))
  end
end

-- Of a log with too many messages the oldest ones are looked at, so many or such bytes of them at most, however many
-- the log keeps: what expired further behind counts until it is among these. They are looked at again when one of them
-- expires, and else in a second, not at every append; at once only where all of them had expired.
local MOST_LOOKED_AT, MOST_BYTES = 256, 33554432

-- Gives how many expired ones it dropped. Mostly those are the first ones of the list.
local function drop_expired(name)
  local most = math.max(1, math.min(MOST_LOOKED_AT, math.floor(MOST_BYTES / math.max(log_largest, 1))))
  if log_largest == math.huge then
    most = 32
  end
  local members, live, leading = call('LRANGE', name, 0, most - 1), {}, 0
  local soonest = math.huge
  for _, member in ipairs(members) do
    local _, expires = times_of(member)
    if expires > now then
      live[#live + 1] = member
      soonest = math.min(soonest, expires)
    elseif #live == 0 then
      leading = leading + 1
    end
  end
  if #members == log_count then
    log_soonest = soonest
  elseif #live > 0 then
    log_soonest = math.min(soonest, now + 1)
  end
  if #live + leading == #members then
    call('LTRIM', name, leading, -1)
  else
    call('LTRIM', name, #members, -1)
    local newest_first = {}
    for at = #live, 1, -1 do
      newest_first[#newest_first + 1] = live[at]
    end
    call('LPUSH', name, unpack(newest_first))
    log_renewed = true
  end
  return #members - #live
end

-- The expired ones are looked for only when there are too many and one of them must have expired.
local function trim(name, excess)
  if log_soonest <= now then
    local dropped = drop_expired(name)
    expired = expired + dropped
    excess = excess - dropped
  end
  if excess > 0 then
    log_trimmed = math.max(log_trimmed, (times_of(call('LINDEX', name, excess - 1))))
    call('LTRIM', name, excess, -1)
    trimmed = trimmed + excess
  end
end

local function settle()
  if not log_moved then
    return
  end
  local name, fresh = messages_name(log_key), false
  if log_stored > 0 then
    -- A list that holds no more than came since it was opened was just made, and knows of no expiry.
    fresh = log_count == log_stored
    log_largest = fresh and log_added or math.max(log_largest, log_added)
    if log_count > store then
      trim(name, log_count - store)
    end
  end
  if log_renewed or fresh then
    call('EXPIREAT', name, text(log_ends))
  end
  local packed = struct.pack('>ddddd', log_last, log_trimmed, log_soonest, log_ends, log_largest)
  if log_renewed then
    call('SET', head_name(log_key), packed, 'EX', text(math.ceil(log_ends - now) + head_life))
  else
    call('SET', head_name(log_key), packed, 'KEEPTTL')
  end
end

local answers = {}
local n = 4
for at = 4, #args, 7 do
  local key, id, floor, deadline, expire, dedupe, body = unpack(args, at, at + 6)
  local own = id ~= '' and dedupe == 0 and (own_ids[id] or open_own(id))
  local id_name = id ~= '' and dedupe > 0 and prefix .. 'i:' .. key .. '\0' .. id
  local first = false
  if own then
    first = first_under(own, key)
  elseif id_name then
    first = get(id_name, 16)
  end
  local ret, mid, previous = 0, 0, 0
  if first == nil then
    ret = -1
  elseif first then
    mid, previous = struct.unpack('>dd', first, #first - 15)
    if not (is_mid(mid) and is_mid(previous)) then
      meet_strange(id_name or own.name)
      ret, mid, previous, first = -1, 0, 0, false
    elseif id_name then
      lengthen(id_name, dedupe)
    end
  elseif now > deadline then
    ret = 65535
  else
    local opened = log_key == key
    if not opened then
      if log_key then
        settle()
      end
      opened = open(key)
    end
    if opened then
      mid, previous = sequence(floor, expire, body)
    end
    if not opened or not mid then
      ret, mid, previous = -1, 0, 0
    elseif own then
      remember(own, key, deadline, mid, previous)
    elseif id_name then
      call('SET', id_name, struct.pack('>dd', mid, previous), 'EX', text(dedupe))
    end
  end
  answers[n + 1], answers[n + 2], answers[n + 3], answers[n + 4] = ret, mid, previous, first and true or false
  n = n + 4
end
if log_key then
  settle()
end
for _, own in pairs(own_ids) do
  settle_own(own)
end
answers[1], answers[2], answers[3], answers[4] = now, trimmed, expired, strange
return cmsgpack.pack(answers)
