-- How far logs have been taken over. Arguments: prefix, then keys. Gives for each its last and its highest trimmed mid,
-- how many messages are there, and the mid of the last one, as doubles, on end.
local answers = {}
for at = 2, #args do
  local head = call('GET', head_name(args[at]))
  local last, trimmed = 0, 0
  if head then
    last, trimmed = struct.unpack('>dd', head)
  end
  local name = messages_name(args[at])
  local tail = call('LINDEX', name, -1)
  local newest = tail and struct.unpack('>d', tail) or 0
  answers[#answers + 1] = struct.pack('>dddd', last, trimmed, call('LLEN', name), newest)
end
return table.concat(answers)
