-- Deletes a key's messages; head and ids stay. Arguments: prefix, seconds the head lives on, key. Gives a
-- strange name.
local head_life, key = args[2], args[3]
call('DEL', messages_name(key))
local head = get(head_name(key), 32)
if head then
  call('SET', head_name(key), string.sub(head, 1, 16) .. struct.pack('>dd', math.huge, 0), 'EX', head_life)
end
return strange
