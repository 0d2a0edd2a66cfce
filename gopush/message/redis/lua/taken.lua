-- How far logs have been taken over. Arguments: prefix, then keys. Gives in a row, as doubles, for each its last and
-- its highest trimmed mid, how many messages are there, and the mid of the last one; where a name is strange, an error.
local answers = {}
for at = 2, #args do
  local head = get(head_name(args[at]), 16)
  local last, trimmed = 0, 0
  if head then
    last, trimmed = struct.unpack('>dd', head)
  end
  local name = messages_name(args[at])
  local count, newest = try_call('LLEN', name), 0
  if type(count) == 'table' then
    take_error(count, 'LLEN', name)
  elseif count > 0 then
    newest = times_of(call('LINDEX', name, -1))
    if newest == 0 then
      meet_strange(name)
    end
  end
  if strange ~= '' then
    return {err = 'STRANGE ' .. strange .. ' is not as gopush writes it'}
  end
  answers[#answers + 1] = struct.pack('>dddd', last, trimmed, count, newest)
end
return table.concat(answers)
