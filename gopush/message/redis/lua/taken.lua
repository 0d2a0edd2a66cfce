-- How far logs have been taken over. Arguments: prefix, then keys. Gives in a row, as doubles, for each its last and
-- its highest trimmed mid, how many messages are there, and the mid of the last one; where a name is strange, an error.
local answers = {}
for at = 2, #args do
  local _, last, trimmed = head_of(args[at])
  local name = messages_name(args[at])
  local count, newest = try_call('LLEN', name), 0
  if type(count) == 'table' then
    take_error(count, 'LLEN', name)
  elseif count > 0 then
    newest = times_in(name, call('LINDEX', name, -1))
  end
  if strange ~= '' then
    return strange_error()
  end
  answers[#answers + 1] = struct.pack('>dddd', last, trimmed, count, newest)
end
return table.concat(answers)
