-- Where logs end. Arguments: prefix, then keys. Gives in a row, as doubles, the server's clock, then last and highest
-- trimmed mid of each, less than 0 where the head is strange; then a strange name.
local none, failed = struct.pack('>dd', 0, 0), struct.pack('>dd', -1, -1)
local answers = {struct.pack('>d', now)}
for at = 2, #args do
  local name = head_name(args[at])
  local head = try_call('GET', name)
  if not head then
    answers[at] = none
  elseif #head < 32 then
    get(name, 32)
    answers[at] = failed
  else
    local last, trimmed = struct.unpack('>dd', head)
    if is_mid(last) and is_mid(trimmed) then
      answers[at] = string.sub(head, 1, 16)
    else
      meet_strange(name)
      answers[at] = failed
    end
  end
end
answers[#answers + 1] = strange
return table.concat(answers)
