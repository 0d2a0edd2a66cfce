-- Stands before every script: its one argument, a list packed by msgpack, and the server's clock.
--
-- Mids are doubles here: exact, as multiples of 16 below 2^57 are; only their text needs care (%.0f).
-- All names expire:
--   h:<key>        string: last mid, highest trimmed mid, when to look for expired messages, end of m:<key>, and bytes
--                  of its largest body (doubles; the last one is missing where an older gopush wrote it)
--   m:<key>        list, mids ascending: mid and expiry (doubles), then the body
--   i:<key>\0<id>  string: mid and previous mid (doubles) of the first append under a publisher's id
--   o:<id>         string: for each key that was pushed to under an own id of web's: key, \0, mid and previous mid
--                  (doubles) of the first append; then when this name ends (double)
--   store          string: what tells this store from all others; it is renewed all the time
--   rights:<hex>   a new connection tries on it what its user may do, and deletes it
--   t:<key>        sorted set: score = when the token ends, member = its digest
local call = redis.call
local args = cmsgpack.unpack(ARGV[1])
local prefix = args[1]
local time = call('TIME')
local now = time[1] + time[2] / 1000000

local function head_name(key) return prefix .. 'h:' .. key end
local function largest_of(head) return #head >= 40 and struct.unpack('>d', head, 33) or math.huge end
local function messages_name(key) return prefix .. 'm:' .. key end
local function own_name(id) return prefix .. 'o:' .. id end
local function tokens_name(key) return prefix .. 't:' .. key end

-- The first name met that holds nothing that gopush has written: it is out of use with its key, and no other key is.
local strange = ''

local function meet_strange(name)
  if strange == '' then
    strange = name
  end
end

-- Gives an error instead of raising it: { err = ... }, whose length is 0.
local try_call, type = redis.pcall, type

-- Takes the error of a call: the name is strange. What else a server refuses is not about this name: made anew, the call
-- raises it in the server's own words.
local function take_error(found, command, name, ...)
  if not string.find(found.err, 'WRONGTYPE', 1, true) then
    call(command, name, ...)
  end
  meet_strange(name)
end

-- A string of at least so many bytes, false where there is none, nil where the name is strange. Where it is called for
-- each of many keys, they do the first of it themselves.
local function get(name, least)
  local found = try_call('GET', name)
  if not found or #found >= least then
    return found
  end
  if type(found) == 'table' then
    take_error(found, 'GET', name)
  else
    meet_strange(name)
  end
  return nil
end

-- Any eight bytes are a number; hardly any others than ours are a mid.
local function is_mid(number) return number >= 0 and number < 2^63 and number % 16 == 0 end

-- A log's head, false where there is none, nil where it is strange; and what it says: last mid, highest trimmed mid, when
-- to look for expired messages, end of the messages.
local function head_of(key)
  local head = get(head_name(key), 32)
  if head then
    local last, trimmed, soonest, ends = struct.unpack('>dddd', head)
    if is_mid(last) and is_mid(trimmed) and trimmed <= last and ends < 2^40 then
      return head, last, trimmed, soonest, ends
    end
    meet_strange(head_name(key))
    head = nil
  end
  return head, 0, 0, math.huge, 0
end

-- Mid and expiry of a member. What is none has long expired.
local function times_of(member)
  if #member >= 16 then
    local mid, expires = struct.unpack('>dd', member)
    if is_mid(mid) then
      return mid, expires
    end
  end
  return 0, 0
end

-- Those of a member of a list, which is strange where it is none.
local function times_in(name, member)
  local mid, expires = times_of(member)
  if mid == 0 then
    meet_strange(name)
  end
  return mid, expires
end

-- Where no key is concerned alone, or `gopush migrate` asks.
local function strange_error() return {err = 'STRANGE ' .. strange .. ' is not as gopush writes it'} end

-- The place of the first message after a cursor: found by halves, for mids ascend.
local function place_after(name, after, count)
  local low, high = 0, count
  while low < high do
    local middle = math.floor((low + high) / 2)
    if times_of(call('LINDEX', name, middle)) > after then
      high = middle
    else
      low = middle + 1
    end
  end
  return low
end
