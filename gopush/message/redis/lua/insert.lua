-- Puts old messages, which end at a whole second, before all that somebody has pushed to a log, however often; a head
-- never goes back. Arguments: prefix, seconds a head outlives its messages; then for each log: key, end, how many
-- messages follow, and these (members of m:<key>, ascending). Gives a byte for each log: 1, or 0 where something that
-- was pushed would come before one of these, or a name is strange; then nothing is done.
--
-- What is behind them is not touched: a list may hold more than a script should read.
local head_life = args[2]

local function text(number) return string.format('%.0f', number) end

local function mid_of(member) return (times_of(member)) end

local function is_old(member)
  local mid, expires = times_of(member)
  return mid > 0 and expires == math.floor(expires)
end

-- The messages up to a mid; nil where one of them was pushed here.
local function first_ones(name, last)
  local found = {}
  while true do
    local member = call('LINDEX', name, #found)
    if not member or mid_of(member) > last then
      return found
    end
    if not is_old(member) then
      return nil
    end
    found[#found + 1] = member
  end
end

local function later(one, other) return mid_of(one) > mid_of(other) end

-- In their places; false where they have none. The new ones themselves are here where the call is made again because its
-- answer was lost.
local function put(name, new)
  local tail = call('LINDEX', name, -1)
  if not tail or (is_old(tail) and mid_of(tail) < mid_of(new[1])) then
    for first = 1, #new, 1000 do
      call('RPUSH', name, unpack(new, first, math.min(first + 999, #new)))
    end
    return true
  end
  local here = first_ones(name, mid_of(new[#new]))
  if not here then
    return false
  end
  local latest_first, is_new = {}, {}
  for at = #new, 1, -1 do
    latest_first[#latest_first + 1] = new[at]
    is_new[mid_of(new[at])] = true
  end
  if #here > 0 then
    for _, member in ipairs(here) do
      if not is_new[mid_of(member)] then
        latest_first[#latest_first + 1] = member
      end
    end
    table.sort(latest_first, later)
    call('LTRIM', name, #here, -1)
  end
  for first = 1, #latest_first, 1000 do
    call('LPUSH', name, unpack(latest_first, first, math.min(first + 999, #latest_first)))
  end
  return true
end

local function insert(key, ends, members)
  local head, last, trimmed, soonest, ends_here = head_of(key)
  if head == nil then
    return false
  end
  ends = math.max(ends, ends_here)
  local new, largest = {}, head and largest_of(head) or 0
  for _, member in ipairs(members) do
    local mid, expires = struct.unpack('>dd', member)
    if mid > trimmed then
      new[#new + 1] = member
      soonest, largest = math.min(soonest, expires), math.max(largest, #member - 16)
    end
  end
  if not new[1] then
    return true
  end
  local name = messages_name(key)
  if not put(name, new) then
    return false
  end
  last = math.max(last, mid_of(new[#new]))
  local life = math.max(math.ceil(ends - now) + head_life, math.ceil(call('PTTL', head_name(key)) / 1000))
  call('EXPIREAT', name, text(ends))
  call('SET', head_name(key), struct.pack('>ddddd', last, trimmed, soonest, ends, largest), 'EX', text(life))
  return true
end

local answers = {}
local at = 3
while at <= #args do
  local key, ends, count = unpack(args, at, at + 2)
  answers[#answers + 1] = insert(key, ends, {unpack(args, at + 3, at + 2 + count)}) and '1' or '0'
  at = at + 3 + count
end
return table.concat(answers)
