-- Sends each radiograph that comes in to xray, once. Findings have other modalities (SR, SEG, PR, OT) and stay.

function OnStoredInstance(instanceId, tags, metadata, origin)
  local modality = tags['Modality']
  if modality == 'CR' or modality == 'DX' then
    SendToModality(instanceId, 'xray')
  end
end
