-- Reads pieces of logs. Arguments: prefix, bytes of the whole answer, bytes of a page; then for each read: key, after,
-- limit. Gives the server's clock, a strange name, then for each: the head (two doubles, 0 where there is none; false
-- where a name is strange); whether there may be more; the mid to go on after where only expired messages were passed,
-- else 0; and the members of its unexpired messages.
--
-- The answer holds one message at least, where there is one; a read for which no room is left gets none, and `more`.
local room, most_bytes = args[2], args[3]
local fetched, given = 0, false

-- How many messages may be fetched at once, so that not more bytes come than are left. Where an older node wrote the
-- head last, the size of the largest one is not known.
local function step(largest, bytes, left)
  local fits = math.floor(math.min(most_bytes - bytes, room - fetched) / math.max(largest, 1))
  return math.max(1, math.min(fits, left, 128))
end

-- Gives nothing where the messages are strange.
local function read(key, after, limit, last, largest)
  local found, bytes = {}, 0
  if last <= after then
    return found, false, 0
  end
  if fetched >= room and given then
    return found, true, 0
  end
  local name = messages_name(key)
  local count = try_call('LLEN', name)
  if type(count) == 'table' then
    take_error(count, 'LLEN', name)
    return nil
  end
  local place = place_after(name, after, count)
  local passed = 0
  while place < count and #found < limit do
    local members = call('LRANGE', name, place, place + step(largest, bytes, limit - #found) - 1)
    for _, member in ipairs(members) do
      local mid, expires = times_of(member)
      local size = #member - 16
      fetched = fetched + size
      if expires > now then
        if given and (bytes + size > most_bytes or fetched > room) then
          return found, true, passed
        end
        given = true
        found[#found + 1] = member
        bytes = bytes + size
      elseif #found == 0 then
        passed = math.max(passed, mid)
      end
    end
    place = place + #members
    if fetched >= room then
      break
    end
  end
  return found, place < count, passed
end

local none = struct.pack('>dd', 0, 0)
local answers, at = {now}, 2
for argument = 4, #args, 3 do
  local key = args[argument]
  local head, last = head_of(key)
  answers[at + 1] = head and string.sub(head, 1, 16) or none
  answers[at + 2], answers[at + 3], answers[at + 4] = false, 0, {}
  local found, more, passed
  if head then
    found, more, passed = read(key, args[argument + 1], args[argument + 2], last, largest_of(head))
  end
  if found then
    answers[at + 4], answers[at + 2], answers[at + 3] = found, more, passed
  elseif head ~= false then
    answers[at + 1] = false
  end
  at = at + 4
end
answers[2] = strange
return cmsgpack.pack(answers)
