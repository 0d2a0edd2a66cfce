-- What old messages are told apart by. They come before all that somebody has pushed to a log, and end at a whole
-- second, so that not more of a log is looked at than these and the one behind them. Arguments: prefix; then for each
-- log: key, mid to go on after. Gives for each, as far as a call should go: the head (two doubles, or '' where there is
-- none); mid and mark of each message in a row, the mark '' of the one that was pushed; whether there may be more.
-- Where a name is strange: an error.
local MOST_BYTES, MOST_MESSAGES = 1048576, 2000
local bytes, messages = 0, 0

local function marks_of(name, after)
  local marks, count = {}, try_call('LLEN', name)
  if type(count) == 'table' then
    take_error(count, 'LLEN', name)
    return marks, false
  end
  local place = after > 0 and place_after(name, after, count) or 0
  while bytes < MOST_BYTES and messages < MOST_MESSAGES do
    local member = call('LINDEX', name, place)
    if not member then
      return marks, false
    end
    bytes, messages, place = bytes + #member, messages + 1, place + 1
    local mid, expires = times_in(name, member)
    if mid == 0 then
      return marks, false
    end
    local is_old = expires == math.floor(expires)
    marks[#marks + 1] = mid
    marks[#marks + 1] = is_old and string.format('%.0f ', expires) .. redis.sha1hex(string.sub(member, 17)) or ''
    if not is_old then
      return marks, false
    end
  end
  return marks, true
end

local answers = {}
for at = 2, #args, 2 do
  if bytes >= MOST_BYTES or messages >= MOST_MESSAGES then
    break
  end
  local head = head_of(args[at])
  local marks, more = marks_of(messages_name(args[at]), args[at + 1])
  if strange ~= '' then
    return strange_error()
  end
  answers[#answers + 1] = {head and string.sub(head, 1, 16) or '', marks, more}
end
return cmsgpack.pack(answers)
